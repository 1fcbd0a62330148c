//! The part of the contract that is about updates to edges: they pass, or they do not.

use std::time::Duration;

use rollcall::bus::{Exchange, Outgoing, PublishError, Queue, SharedBus, Subscription, Topology};
use rollcall::model::EdgeName;
use tokio::time::{Instant, sleep, timeout};

use super::contract::{DEADLINE, Deployment, QUIET, body, number, numbers, take, tokens};

pub(crate) async fn updates_reach_their_edge_alone(deployment: &mut impl Deployment) {
    let bus = deployment.bus();
    let (mut one, mut other) = (edge(bus, "one").await, edge(bus, "other").await);
    bus.publish(vec![update("one", 1), update("other", 2), update("one", 3)]).await.unwrap();
    let taken = take(&mut *one, 2).await;
    assert_eq!(numbers(&taken), [1, 3]);
    let name = EdgeName::parse("one").unwrap();
    assert_eq!((&taken[0].queue, &*taken[0].routing_key), (&Queue::Updates(name), "one"));
    one.ack(tokens(taken)).await.unwrap();
    assert_eq!(numbers(&take(&mut *other, 1).await), [2]);
    assert!(timeout(QUIET, one.next()).await.is_err(), "another's");
}

/// Also beside messages that must arrive.
pub(crate) async fn an_edge_that_is_gone_is_no_failure(deployment: &mut impl Deployment) {
    deployment.bus().publish(vec![update("nobody", 1)]).await.unwrap();
    deployment.bus().publish(vec![Outgoing::new(Exchange::Users, "0", body(7)), update("nobody", 2)]).await.unwrap();
    let mut late = edge(deployment.bus(), "nobody").await;
    assert!(timeout(QUIET, late.next()).await.is_err(), "nothing is kept for who is not there");
    let mut users = deployment.bus().subscribe(&[(super::contract::USERS, 10)]).await.unwrap();
    assert_eq!(numbers(&take(&mut *users, 1).await), [7]);
}

pub(crate) async fn a_name_that_is_none_is_an_error(deployment: &mut impl Deployment) {
    let error = deployment.bus().publish(vec![update("No.Edge", 1)]).await.unwrap_err();
    assert!(matches!(&error, PublishError::Unroutable { routing_key, .. } if routing_key == "No.Edge"), "{error}");
}

pub(crate) async fn updates_end_with_their_subscription(deployment: &mut impl Deployment) {
    let first = edge(deployment.bus(), "one").await;
    deployment.bus().publish(vec![update("one", 1)]).await.unwrap();
    drop(first);
    let mut second = edge(deployment.bus(), "one").await;
    deployment.bus().publish(vec![update("one", 2)]).await.unwrap();
    assert_eq!(numbers(&take(&mut *second, 1).await), [2], "the first is gone");
}

pub(crate) async fn two_edges_of_one_name_do_not_share(deployment: &mut impl Deployment) {
    let mut first = edge(deployment.bus(), "one").await;
    assert!(subscribe(deployment.bus(), "one").await.is_err());
    deployment.bus().publish(vec![update("one", 1)]).await.unwrap();
    assert_eq!(numbers(&take(&mut *first, 1).await), [1]);
}

/// `x-max-length-bytes` and `drop-head`.
pub(crate) async fn the_oldest_updates_make_room(deployment: &mut impl Deployment) {
    const SIZE: usize = 1 << 20;
    let fit = u32::try_from(Topology::UPDATES_MAX_BYTES).unwrap() >> 20;
    let mut slow = deployment.bus().subscribe(&[(queue("one"), 1)]).await.unwrap();
    for n in 0..fit + 10 {
        let mut large = n.to_be_bytes().to_vec();
        large.resize(SIZE, 0);
        deployment.bus().publish(vec![Outgoing::new(Exchange::Updates, "one", large)]).await.unwrap();
    }
    let mut seen = Vec::new();
    while seen.last() != Some(&(fit + 9)) {
        let delivery = take(&mut *slow, 1).await.remove(0);
        seen.push(u32::from_be_bytes(delivery.body[..4].try_into().unwrap()));
        slow.ack(vec![delivery.token]).await.unwrap();
    }
    assert!(seen.windows(2).all(|two| two[0] < two[1]), "{seen:?}");
    // One may have been taken before the flood.
    let kept = u32::try_from(seen.len()).unwrap();
    assert!((fit - 1..=fit + 1).contains(&kept), "{kept} of at most {fit}: {seen:?}");
}

pub(crate) async fn updates_are_taken_so_many_at_once(deployment: &mut impl Deployment) {
    let mut subscription = deployment.bus().subscribe(&[(queue("one"), 3)]).await.unwrap();
    deployment.bus().publish((0..10).map(|n| update("one", n)).collect()).await.unwrap();
    let mut held = take(&mut *subscription, 3).await;
    assert!(timeout(QUIET, subscription.next()).await.is_err(), "a fourth came");
    subscription.ack(vec![held.remove(0).token]).await.unwrap();
    assert_eq!(number(&take(&mut *subscription, 1).await[0]), 3);
}

fn update(edge: &str, number: u32) -> Outgoing {
    Outgoing::new(Exchange::Updates, edge, body(number))
}

fn queue(edge: &str) -> Queue {
    Queue::Updates(EdgeName::parse(edge).unwrap())
}

async fn subscribe(bus: &SharedBus, edge: &str) -> Result<Box<dyn Subscription>, rollcall::bus::SubscriptionError> {
    bus.subscribe(&[(queue(edge), 1000)]).await
}

/// A broker may need a moment to see that the one before is gone.
async fn edge(bus: &SharedBus, name: &str) -> Box<dyn Subscription> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match subscribe(bus, name).await {
            Ok(subscription) => return subscription,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        sleep(Duration::from_millis(20)).await;
    }
}
