//! What a client reads of its own devices.

use std::sync::Arc;

use reqwest::{Method, StatusCode};
use rollcall::clock::Clock as _;
use rollcall::core::signal::UserSignal;
use rollcall::edge::EdgeParts;
use rollcall::reader::Reader;
use serde_json::{Value, json};

use super::edge::{Edge, Own, assert_error, config, parts};
use super::moved::Moved;
use super::name;
use crate::support::pair::{Server, defaults, device};
use crate::support::rows::Rows;

const JOHN: &str = "@john:a.example";

fn set_type(server: &mut Server, clock: &Moved, id: &str, device_type: Option<&str>) {
    let (device_type, stamp) = (device_type.map(Into::into), server.stamp(clock.now()));
    server.tell(clock.now(), JOHN, UserSignal::Device { device: device(id), device_type, stamp });
}

async fn read(edge: &Edge, user: &str, id: &str) -> (StatusCode, Value) {
    let path = format!("/_rollcall/v1/users/{user}/devices/{id}");
    edge.ask(Method::GET, &path, &format!("Bearer {JOHN}|PHONE"), "").await
}

#[tokio::test]
async fn a_device_reads_as_it_was_put_and_only_to_its_user() {
    let (mut server, clock) = (Server::with("a.example", defaults()), Moved::new());
    for id in ["PHONE", "OLD"] {
        let stamp = server.stamp(clock.now());
        server.tell(clock.now(), JOHN, UserSignal::Idle { device: device(id), idle_ms: Some(5_000), stamp });
        set_type(&mut server, &clock, id, Some("mobile"));
    }
    let stamp = server.stamp(clock.now());
    server.tell(clock.now(), JOHN, UserSignal::Activity { device: device("WEB"), set_presence: None, stamp });
    set_type(&mut server, &clock, "OLD", None);
    let own = Own::start().await;
    let rows = Arc::new(Rows::new(server.rows.clone()));
    let reader = Reader::new(rows, name("a.example"), 1, defaults().rules());
    let parts = EdgeParts { reader, clock: Arc::new(clock.clone()), ..parts(&own, config(), &[]) };
    let edge = Edge::with(own, parts).await;
    clock.by_seconds(2);
    let phone = json!({ "idle_ms": 7_000, "device_type": "mobile" });
    assert_eq!(read(&edge, JOHN, "PHONE").await, (StatusCode::OK, phone));
    let web = json!({ "idle_ms": null, "device_type": null });
    assert_eq!(read(&edge, JOHN, "WEB").await, (StatusCode::OK, web));
    for absent in ["OLD", "NONE"] {
        assert_error(&read(&edge, JOHN, absent).await, 404, "M_NOT_FOUND", "device");
    }
    assert_error(&read(&edge, "@alice:a.example", "PHONE").await, 403, "M_FORBIDDEN", "another");
}
