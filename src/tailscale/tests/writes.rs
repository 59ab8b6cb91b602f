//! Attributes are written in batches, and a refused device alone.

use super::*;

pub(super) fn write(node: &str, set: Option<u8>, delete: bool) -> AttributeWrite {
    AttributeWrite {
        node_id: id(node),
        set: set.map(|score| ("custom:ztaScore".to_owned().try_into().unwrap(), score)),
        delete: delete.then(|| "custom:old".to_owned().try_into().unwrap()),
    }
}

fn writes(range: std::ops::Range<usize>) -> Vec<AttributeWrite> {
    range
        .map(|n| write(&format!("n{n:03}"), Some(50), false))
        .collect()
}

/// The nodes of a batch's body.
fn nodes(asked: &Asked) -> Vec<String> {
    let body: Value = serde_json::from_str(&asked.body).unwrap();
    body["nodes"].as_object().unwrap().keys().cloned().collect()
}

/// A server whose batch refuses the nodes that `bad` says, and accepts those without.
fn picky(bad: fn(&str) -> bool) -> Server {
    server(move |_, asked| {
        if nodes(asked).iter().any(|node| bad(node)) {
            message(400, "unknown node")
        } else {
            answer(200, &[], "null")
        }
    })
}

#[tokio::test]
async fn a_batch_is_one_merge_patch() {
    let server = server(|_, _| answer(200, &[], "null"));
    let changes = [write("nA", Some(71), true), write("nB", None, true)];
    let written = sign_in(&server)
        .await
        .writer()
        .write(&changes, &"y".repeat(300))
        .await;
    assert_eq!(written.accepted, [id("nA"), id("nB")]);
    assert!(written.refused.is_empty() && written.error.is_none());
    assert_eq!(
        calls(&server),
        ["PATCH /api/v2/tailnet/example.com/device-attributes"]
    );
    let body: Value = serde_json::from_str(&server.asked()[1].body).unwrap();
    assert_eq!(
        body["nodes"],
        json!({"nA": {"custom:ztaScore": {"value": 71}, "custom:old": null}, "nB": {"custom:old": null}})
    );
    assert_eq!(body["comment"].as_str().unwrap().chars().count(), 200);
}

#[tokio::test]
async fn a_refused_device_is_found_and_the_others_are_written() {
    let server = picky(|node| node == "n042" || node == "n101");
    let written = sign_in(&server)
        .await
        .writer()
        .write(&writes(0..150), "why")
        .await;
    assert_eq!(written.accepted.len(), 148);
    let unknown = "unknown node".to_owned();
    assert_eq!(
        written.refused,
        [(id("n042"), unknown.clone()), (id("n101"), unknown)]
    );
    assert!(written.error.is_none());
}

#[tokio::test]
async fn when_all_are_refused_batches_are_not_taken_apart_for_ever() {
    let server = picky(|_| true);
    let writer = sign_in(&server).await.writer();
    let written = writer.write(&writes(0..1000), "why").await;
    assert_eq!(written.refused.len(), 1000);
    let first = calls(&server).len();
    assert!(first < 200, "{first}");
    let written = writer.write(&writes(0..100), "why").await;
    assert_eq!(written.refused.len(), 100);
    assert_eq!(
        calls(&server).len(),
        first + 3,
        "a hundred, and two times fifty"
    );
}

#[tokio::test]
async fn one_bad_device_takes_few_others_along_even_when_many_were_refused() {
    let server = picky(|node| node < "n100" || node == "n700");
    let writer = sign_in(&server).await.writer();
    assert_eq!(
        writer.write(&writes(0..100), "why").await.refused.len(),
        100
    );
    let written = writer.write(&writes(500..1000), "why").await;
    assert!(written.error.is_none());
    assert_eq!(written.accepted.len() + written.refused.len(), 500);
    let refused: Vec<&str> = written
        .refused
        .iter()
        .map(|(id, _)| id.0.as_str())
        .collect();
    assert!(
        refused.contains(&"n700") && refused.len() <= 50,
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_limit_of_the_batch_is_found_and_kept_to() {
    let server = server(|_, asked| {
        if nodes(asked).len() > 130 {
            message(400, "too many nodes")
        } else {
            answer(200, &[], "null")
        }
    });
    let writer = sign_in(&server).await.writer();
    let written = writer.write(&writes(0..500), "why").await;
    assert_eq!((written.accepted.len(), written.refused.len()), (500, 0));
    let first = calls(&server).len();
    assert_eq!(first, 1 + 2 + 4);
    let written = writer.write(&writes(500..1000), "why").await;
    assert_eq!((written.accepted.len(), written.refused.len()), (500, 0));
    assert_eq!(calls(&server).len(), first + 4, "no more than it takes");
}

#[tokio::test]
async fn a_failure_of_the_whole_ends_the_writing_and_keeps_what_was_accepted() {
    let server = server(|number, _| match number {
        0 => answer(200, &[], "null"),
        _ => message(
            403,
            "calling actor does not have enough permissions to perform this function",
        ),
    });
    let written = sign_in(&server)
        .await
        .writer()
        .write(&writes(0..750), "why")
        .await;
    assert_eq!(written.accepted.len(), 500);
    assert!(written.refused.is_empty());
    let error = written.error.unwrap().to_string();
    assert!(
        error.contains("lacks the scope devices:posture_attributes"),
        "{error}"
    );
    assert_eq!(calls(&server).len(), 2);
}

#[tokio::test]
async fn a_batch_that_fails_on_the_way_is_sent_again() {
    let server = server(|number, _| match number {
        0 => answer(502, &[], "<html>"),
        1 => answer(429, &["retry-after: 0"], ""),
        2 => Vec::new(),
        _ => answer(200, &[], "null"),
    });
    let written = sign_in(&server)
        .await
        .writer()
        .write(&writes(0..1), "why")
        .await;
    assert_eq!(written.accepted.len(), 1);
}

#[tokio::test]
async fn without_a_batch_call_attributes_are_written_singly() {
    for missing in [
        answer(405, &[], ""),
        answer(404, &[], "404 page not found"),
        answer(501, &[], ""),
    ] {
        let server = server(move |_, asked| match asked.line.as_str() {
            line if line.starts_with("PATCH") => missing.clone(),
            "POST /api/v2/device/nB/attributes/custom:ztaScore" => message(404, "no such device"),
            line if line.starts_with("DELETE") => message(404, "no such attribute"),
            _ => answer(200, &[], "null"),
        });
        let changes = [
            write("nA", Some(71), true),
            write("nB", Some(1), false),
            write("nC", None, true),
        ];
        let writer = sign_in(&server).await.writer();
        let written = writer.write(&changes, "why").await;
        assert_eq!(written.accepted, [id("nA"), id("nC")]);
        assert_eq!(written.refused, [(id("nB"), "no such device".to_owned())]);
        assert!(written.error.is_none());
        let mut asked = calls(&server);
        asked.sort();
        assert_eq!(
            asked,
            [
                "DELETE /api/v2/device/nA/attributes/custom:old",
                "DELETE /api/v2/device/nC/attributes/custom:old",
                "PATCH /api/v2/tailnet/example.com/device-attributes",
                "POST /api/v2/device/nA/attributes/custom:ztaScore",
                "POST /api/v2/device/nB/attributes/custom:ztaScore",
            ]
        );
        let post = server
            .asked()
            .into_iter()
            .find(|asked| asked.line.contains("POST /api/v2/device/nA"));
        assert_eq!(post.unwrap().body, r#"{"value":71,"comment":"why"}"#);
        // It is not asked for again.
        writer.write(&changes[..1], "why").await;
        assert_eq!(
            calls(&server)
                .iter()
                .filter(|line| line.starts_with("PATCH"))
                .count(),
            1
        );
    }
}

#[tokio::test]
async fn single_writes_end_at_a_failure_of_the_whole_and_tell_what_was_accepted() {
    let server = server(|_, asked| match asked.line.as_str() {
        line if line.starts_with("PATCH") => answer(405, &[], ""),
        line if line.contains("n005") => message(403, "no permission"),
        _ => answer(200, &[], "null"),
    });
    let written = sign_in(&server)
        .await
        .writer()
        .write(&writes(0..20), "why")
        .await;
    assert_eq!(written.accepted.len(), 7);
    assert!(written.error.unwrap().kind().pauses());
}
