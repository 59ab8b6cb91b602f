//! A minimal HTTP client: one request per connection, so that the caller sees every reset.

use std::collections::BTreeMap;
use std::io;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub(crate) fn message(&self) -> String {
        let body = self.json();
        let message = body
            .get("message")
            .or_else(|| body.pointer("/errors/0/message"));
        message
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    }
}

/// A caller with a token.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) base: String,
    pub(crate) token: String,
}

impl Client {
    pub(crate) async fn get(&self, path: &str) -> Response {
        self.call("GET", path, "").await.unwrap()
    }

    pub(crate) async fn send(&self, method: &str, path: &str, body: &Value) -> Response {
        self.call(method, path, &body.to_string()).await.unwrap()
    }

    pub(crate) async fn call(&self, method: &str, path: &str, body: &str) -> io::Result<Response> {
        let headers = format!(
            "Authorization: Bearer {}\r\nContent-Type: application/json\r\n",
            self.token
        );
        request(&self.base, method, path, &headers, body).await
    }
}

pub(crate) async fn form(base: &str, path: &str, body: &str) -> Response {
    request(
        base,
        "POST",
        path,
        "Content-Type: application/x-www-form-urlencoded\r\n",
        body,
    )
    .await
    .unwrap()
}

pub(crate) async fn request(
    base: &str,
    method: &str,
    path: &str,
    headers: &str,
    body: &str,
) -> io::Result<Response> {
    let host = base.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(host).await?;
    let length = body.len();
    // characters that FQL needs and a request line cannot contain
    let path = path
        .replace('>', "%3E")
        .replace('<', "%3C")
        .replace('\'', "%27")
        .replace('+', "%2B")
        .replace(' ', "%20");
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n"
    );
    stream.write_all(format!("{head}{body}").as_bytes()).await?;
    let mut received = Vec::new();
    stream.read_to_end(&mut received).await?;
    let split = received
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .ok_or(io::ErrorKind::UnexpectedEof)?;
    let head = String::from_utf8_lossy(&received[..split]).into_owned();
    let mut lines = head.lines();
    let status = lines
        .next()
        .unwrap()
        .split(' ')
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    let headers = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    Ok(Response {
        status,
        headers,
        body: received[split + 4..].to_vec(),
    })
}
