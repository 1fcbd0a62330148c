//! A user with one device, towards the HTTP edge of a server with dev authentication.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use rollcall::outbound::http::client;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

/// Far beyond what anything here takes; a test that reaches it has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// See the module.
pub struct Person {
    /// `@name:server`
    pub id: String,
    base: String,
    http: reqwest::Client,
}

impl Person {
    /// User `id` of the server whose edge is at `base`.
    pub fn new(id: &str, base: &str) -> Self {
        Self { id: id.to_owned(), base: base.to_owned(), http: client(PATIENCE).unwrap() }
    }

    /// Sends a request; the status and the body's JSON.
    pub async fn ask(&self, method: Method, path: &str, body: &str) -> (StatusCode, Value) {
        let request = self.http.request(method, format!("{}{path}", self.base));
        let answer = request.bearer_auth(format!("{}|DEV", self.id)).body(body.to_owned()).send().await.unwrap();
        let status = answer.status();
        (status, serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap_or(Value::Null))
    }

    /// C1. Returns when the answer is here.
    pub async fn set(&self, presence: &str, message: &str) {
        let path = format!("/_matrix/client/v3/presence/{}/status", self.id);
        self.done(Method::PUT, &path, &json!({ "presence": presence, "status_msg": message })).await;
    }

    /// C6.
    pub async fn list(&self, users: &[&str]) {
        let path = format!("/_matrix/client/v3/presence/list/{}", self.id);
        self.done(Method::POST, &path, &json!({ "invite": users })).await;
    }

    /// C6: takes somebody off the list.
    pub async fn drop(&self, who: &str) {
        let path = format!("/_matrix/client/v3/presence/list/{}", self.id);
        self.done(Method::POST, &path, &json!({ "drop": [who] })).await;
    }

    /// C5. Reads every 10 ms until the list is as it should be; the list that was. (To read it starts a session of two minutes.)
    pub async fn lists_that(&self, should: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let path = format!("/_matrix/client/v3/presence/list/{}", self.id);
            let (_, list) = self.ask(Method::GET, &path, "").await;
            let list = list.as_array().cloned().unwrap_or_default();
            if should(&list) {
                return list;
            }
            assert!(Instant::now() < deadline, "the list of {}: {list:?}", self.id);
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// S1. Reads every 10 ms until these wait for an answer.
    pub async fn is_asked_by(&self, observers: &[&str]) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (_, asked) = self.ask(Method::GET, &format!("/_rollcall/v1/users/{}/requests", self.id), "").await;
            let found: Vec<_> = asked.as_array().unwrap().iter().map(|entry| entry["observer"].clone()).collect();
            if found == observers {
                return;
            }
            assert!(Instant::now() < deadline, "{} is asked by {asked}", self.id);
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// S2.
    pub async fn answer(&self, observer: &str, allow: bool) {
        let path = format!("/_rollcall/v1/users/{}/requests/{observer}", self.id);
        self.done(Method::POST, &path, &json!({ "allow": allow })).await;
    }

    /// C4.
    pub async fn poll(&self) {
        let path = format!("/_rollcall/v1/users/{}/poll/DEV", self.id);
        self.done(Method::PUT, &path, &json!({})).await;
    }

    /// C4: polls no longer.
    pub async fn leave(&self) {
        let path = format!("/_rollcall/v1/users/{}/poll/DEV", self.id);
        self.done(Method::DELETE, &path, &json!({})).await;
    }

    /// What this user sees of `who`; null where the edge refuses.
    pub async fn sees(&self, who: &str) -> Value {
        let (status, body) = self.ask(Method::GET, &format!("/_matrix/client/v3/presence/{who}/status"), "").await;
        if status.is_success() { body } else { Value::Null }
    }

    /// Reads every 10 ms until `who` shows `message`; the answer that did.
    pub async fn sees_message(&self, who: &str, message: &str) -> Value {
        self.sees_that(who, |seen| seen["status_msg"] == message).await
    }

    /// Reads every 10 ms until what it sees of `who` is as it should be; the answer that was.
    pub async fn sees_that(&self, who: &str, should: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let seen = self.sees(who).await;
            if should(&seen) {
                return seen;
            }
            assert!(Instant::now() < deadline, "all that {} sees of {who}: {seen}", self.id);
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// The AMQP contract over HTTP.
    pub async fn events(&self, body: &Value) -> (StatusCode, Value) {
        self.ask(Method::POST, "/_rollcall/v1/events", &body.to_string()).await
    }

    async fn done(&self, method: Method, path: &str, body: &Value) {
        let (status, answer) = self.ask(method, path, &body.to_string()).await;
        assert_eq!(status, StatusCode::OK, "{path}: {answer}");
    }
}
