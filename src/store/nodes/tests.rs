//! Reading node records from DynamoDB responses of every kind.

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region};
use serde_json::{Value, json};

use super::*;
use crate::testing::server::{Server, answer};
use crate::text::error_chain;

/// Returns a node record in the form of DynamoDB.
fn item(node: &str) -> Value {
    json!({
        "nodeId": {"S": node}, "score": {"N": "71"}, "attributeKey": {"S": "custom:ztaScore"},
        "serial": {"S": "C02D91CNPV4M"}, "name": {"S": "laptop.tail1.ts.net"},
        "aid": {"S": "4a027b0c95404062be4148c989dcf4c1"}, "writtenAt": {"S": "2026-01-02T03:04:05Z"},
        "runId": {"S": "run"},
    })
}

fn page(items: &[Value], last: Option<&str>) -> Vec<u8> {
    let mut page = json!({"Count": items.len(), "ScannedCount": items.len(), "Items": items});
    if let Some(node) = last {
        page["LastEvaluatedKey"] = json!({"integrationId": {"S": "corp"}, "nodeId": {"S": node}});
    }
    answer(200, &[], page.to_string())
}

async fn read(server: &Server) -> Result<StoredNodes, StoreError> {
    let config = aws_sdk_dynamodb::Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("id", "secret", None, None, "test"))
        .endpoint_url(server.url.as_str())
        .build();
    let table = || "table".to_owned();
    let store = Store {
        client: Client::from_conf(config),
        integrations: table(),
        nodes: table(),
        audit: table(),
    };
    store.nodes(&"corp".to_owned().try_into().unwrap()).await
}

#[tokio::test]
async fn all_pages_are_read_in_order() {
    let server = Server::new(|number, _| match number {
        0 => page(&[item("nA"), item("nB")], Some("nB")),
        // An empty page is not the end.
        1 => page(&[], Some("nC")),
        _ => page(&[item("nD")], None),
    });
    let records = read(&server).await.unwrap().records;
    let nodes: Vec<_> = records.keys().map(ToString::to_string).collect();
    assert_eq!(nodes, ["nA", "nB", "nD"]);
    let expect = json!({
        "attributeKey": "custom:ztaScore", "score": 71, "aid": "4a027b0c95404062be4148c989dcf4c1",
        "serial": "C02D91CNPV4M", "name": "laptop.tail1.ts.net", "writtenAt": "2026-01-02T03:04:05Z",
        "runId": "run",
    });
    assert_eq!(
        serde_json::to_value(records.values().next()).unwrap(),
        expect
    );
    let starts: Vec<Value> = server
        .asked()
        .iter()
        .map(|asked| {
            serde_json::from_str::<Value>(&asked.body).unwrap()["ExclusiveStartKey"]["nodeId"]["S"]
                .take()
        })
        .collect();
    assert_eq!(starts, [Value::Null, "nB".into(), "nC".into()]);
}

#[tokio::test]
async fn an_edited_record_is_named_with_what_it_lacks() {
    for (attribute, value) in [
        ("score", json!({"S": "71"})),
        ("score", json!({"N": "71.5"})),
        ("score", json!({"N": "101"})),
        ("attributeKey", json!({"S": "intune:x"})),
        ("aid", json!({"NULL": true})),
        ("serial", json!({"L": [{"S": "a"}]})),
        ("runId", json!({"M": {"S": {"S": "a"}}})),
    ] {
        let mut edited = item("nB");
        edited[attribute] = value;
        let server = Server::new(move |_, _| page(&[item("nA"), edited.clone()], None));
        let StoredNodes {
            records,
            unreadable,
        } = read(&server).await.unwrap();
        let problem = format!("the record of \"nB\" has no usable `{attribute}`");
        assert_eq!(unreadable, [(NodeId("nB".into()), problem)].into());
        assert_eq!(records.len(), 1, "the others are read");
    }
    let mut lacking = item("nA");
    lacking["name"] = json!({"N": "1"});
    lacking["writtenAt"] = json!({"S": "yesterday"});
    let server = Server::new(move |_, _| page(&[lacking.clone()], None));
    let records = read(&server).await.unwrap().records;
    let record = records.values().next().unwrap();
    assert_eq!((record.name.as_str(), record.written_at), ("", None));
}

/// The SDK retries throttled calls. A broken response, or one without its list, is an error: it must not pass for a table
/// without records.
#[tokio::test]
async fn a_broken_response_is_an_error() {
    let throttled =
        r#"{"__type":"com.amazonaws.dynamodb.v20120810#ThrottlingException","message":"slow"}"#;
    let server = Server::new(move |number, _| match number {
        0 => answer(400, &[], throttled),
        _ => page(&[item("nA")], None),
    });
    assert_eq!(read(&server).await.unwrap().records.len(), 1);
    assert_eq!(server.asked().len(), 2);

    for (body, expect) in [
        (
            "{}",
            "DynamoDB: could not read the node records: the response is empty",
        ),
        (
            r#"{"Items":[{"nodeId":{"S":s3cret}}]}"#,
            "HTTP 200: the response does not decode",
        ),
        (
            r#"{"Items":[{"nodeId":{"S":"s3cret"#,
            "HTTP 200: the response does not decode",
        ),
    ] {
        let server = Server::new(move |_, _| answer(200, &[], body));
        let text = error_chain(&read(&server).await.unwrap_err());
        assert!(text.contains(expect), "{text}");
        assert!(!text.contains("s3cret"), "{text}");
    }

    let denied = r#"{"__type":"com.amazon.coral.service#AccessDeniedException","Message":"no dynamodb:Query"}"#;
    let server = Server::new(move |_, _| answer(400, &[], denied));
    let text = error_chain(&read(&server).await.unwrap_err());
    assert!(text.contains("AccessDenied"), "{text}");
    assert_eq!(server.asked().len(), 1);
}
