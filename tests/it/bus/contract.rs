//! What every bus keeps to. Each case gets a deployment with queues of its own, declared and empty.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use rollcall::bus::{
    Delivery, Exchange, Outgoing, PublishError, Queue, SharedBus, Subscription, SubscriptionError, Token, Topology,
};
use rollcall::model::{EdgeName, Partition, TraceId};
use tokio::time::{sleep, timeout};

/// Nothing here takes as long on a working bus.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
/// How long something that must not come is waited for.
pub(crate) const QUIET: Duration = Duration::from_millis(400);
pub(crate) const PARTITIONS: u16 = 2;
pub(crate) const USERS: Queue = Queue::Users(Partition(0));
const PREFETCH: u16 = 1000;

/// Queues on some broker, and ways to reach them.
pub(crate) trait Deployment {
    /// The bus that the deployment came with.
    fn bus(&self) -> &SharedBus;

    /// Another instance on the same queues, as after a restart of the process.
    fn restart(&mut self) -> impl Future<Output = ()>;

    fn topology(&self) -> Topology;
}

/// Makes a test of every case; the argument is a future of a [`Deployment`].
macro_rules! tests {
    ($deployment:expr) => {
        $crate::bus::contract::tests!($deployment =>
            what_is_published_arrives_byte_for_byte, order_holds_within_a_queue, nothing_to_publish_is_fine,
            the_unacknowledged_come_again_in_order, the_acknowledged_do_not_come_again, a_held_delivery_is_not_acked_by_others,
            acknowledged_across_queues, a_restart_loses_nothing, prefetch_bounds_what_is_held, every_queue_gets_its_turn,
            what_cannot_be_routed_is_an_error, an_unknown_inbound_key_is_a_dead_letter, dead_letters_keep_their_reason,
            replies_find_their_way, a_reply_to_nowhere_harms_nothing, many_publishers_at_once, declaring_twice_is_fine,
            depths_count_what_waits, next_may_be_cancelled, a_closed_bus_says_so,
            updates_reach_their_edge_alone, an_edge_that_is_gone_is_no_failure, a_name_that_is_none_is_an_error,
            updates_end_with_their_subscription, two_edges_of_one_name_do_not_share, the_oldest_updates_make_room,
            updates_are_taken_so_many_at_once,
        );
    };
    ($deployment:expr => $($case:ident),+ $(,)?) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $case() {
            let mut deployment = $deployment.await;
            let case = $crate::bus::contract::$case(&mut deployment);
            tokio::time::timeout($crate::bus::contract::DEADLINE, case).await.expect("a case ends before its deadline");
        }
    )+};
}
pub(crate) use super::updates::*;
pub(crate) use tests;

pub(crate) async fn what_is_published_arrives_byte_for_byte(deployment: &mut impl Deployment) {
    let body: Bytes = (0..300_000u32).flat_map(u32::to_le_bytes).collect();
    let mut message = Outgoing::new(Exchange::Users, "0", body.clone());
    message.headers.trace = Some(TraceId(u128::MAX / 3));
    deployment.bus().publish(vec![message.clone(), Outgoing::new(Exchange::Users, "0", Bytes::new())]).await.unwrap();
    let deliveries = take(&mut *subscribe(deployment, &[USERS]).await, 2).await;
    assert_eq!(deliveries[0].body, body);
    assert_eq!((deliveries[0].headers.clone(), &deliveries[0].queue), (message.headers, &USERS));
    assert!(!deliveries[0].redelivered);
    assert!(deliveries[1].body.is_empty());
}

pub(crate) async fn order_holds_within_a_queue(deployment: &mut impl Deployment) {
    deployment.bus().publish(numbered(0..700)).await.unwrap();
    deployment.bus().publish(numbered(700..1000)).await.unwrap();
    let deliveries = take(&mut *subscribe(deployment, &[USERS]).await, 1000).await;
    assert_eq!(numbers(&deliveries), (0..1000).collect::<Vec<_>>());
}

pub(crate) async fn nothing_to_publish_is_fine(deployment: &mut impl Deployment) {
    deployment.bus().publish(vec![]).await.unwrap();
}

pub(crate) async fn the_unacknowledged_come_again_in_order(deployment: &mut impl Deployment) {
    deployment.bus().publish(numbered(0..100)).await.unwrap();
    let mut first = subscribe(deployment, &[USERS]).await;
    let held = take(&mut *first, 60).await;
    assert!(held.iter().all(|delivery| !delivery.redelivered));
    drop(first);
    let again = take(&mut *subscribe(deployment, &[USERS]).await, 100).await;
    assert_eq!(numbers(&again), (0..100).collect::<Vec<_>>());
    assert!(again[..60].iter().all(|delivery| delivery.redelivered));
}

pub(crate) async fn the_acknowledged_do_not_come_again(deployment: &mut impl Deployment) {
    deployment.bus().publish(numbered(0..50)).await.unwrap();
    let mut first = subscribe(deployment, &[USERS]).await;
    let tokens = tokens(take(&mut *first, 50).await);
    first.ack(tokens).await.unwrap();
    drop(first);
    deployment.bus().publish(numbered(50..51)).await.unwrap();
    let next = take(&mut *subscribe(deployment, &[USERS]).await, 1).await;
    assert_eq!(numbers(&next), [50]);
}

/// As the batching exchange does: the oldest are held while later ones are done.
pub(crate) async fn a_held_delivery_is_not_acked_by_others(deployment: &mut impl Deployment) {
    deployment.bus().publish(numbered(0..20)).await.unwrap();
    let mut first = subscribe(deployment, &[USERS]).await;
    let held = [0, 7, 8, 19];
    let done = take(&mut *first, 20).await.into_iter().filter(|delivery| !held.contains(&number(delivery)));
    let (early, late): (Vec<_>, Vec<_>) = done.partition(|delivery| number(delivery) < 10);
    first.ack(tokens(late)).await.unwrap();
    first.ack(tokens(early)).await.unwrap();
    drop(first);
    deployment.bus().publish(numbered(20..21)).await.unwrap();
    let again = take(&mut *subscribe(deployment, &[USERS]).await, 5).await;
    assert_eq!(numbers(&again), [0, 7, 8, 19, 20]);
}

pub(crate) async fn acknowledged_across_queues(deployment: &mut impl Deployment) {
    let queues = Queue::of_partition(Partition(0));
    let exchanges = [Exchange::Users, Exchange::Peers, Exchange::Batch];
    let messages = (0..90u32).map(|n| Outgoing::new(exchanges[n as usize % 3], "0", body(n))).collect();
    deployment.bus().publish(messages).await.unwrap();
    let mut first = subscribe(deployment, &queues).await;
    let deliveries = take(&mut *first, 90).await;
    let (done, held): (Vec<_>, Vec<_>) = deliveries.into_iter().partition(|delivery| delivery.queue == queues[1]);
    let mut held = numbers(&held);
    first.ack(tokens(done)).await.unwrap();
    drop(first);
    let mut again = numbers(&take(&mut *subscribe(deployment, &queues).await, 60).await);
    held.sort_unstable();
    again.sort_unstable();
    assert_eq!(again, held);
}

pub(crate) async fn a_restart_loses_nothing(deployment: &mut impl Deployment) {
    deployment.bus().publish(numbered(0..30)).await.unwrap();
    let mut subscription = subscribe(deployment, &[USERS]).await;
    let mut taken = take(&mut *subscription, 20).await;
    taken.truncate(10);
    subscription.ack(tokens(taken)).await.unwrap();
    drop(subscription);
    deployment.restart().await;
    let again = take(&mut *subscribe(deployment, &[USERS]).await, 20).await;
    assert_eq!(numbers(&again), (10..30).collect::<Vec<_>>());
}

pub(crate) async fn prefetch_bounds_what_is_held(deployment: &mut impl Deployment) {
    deployment.bus().publish(numbered(0..10)).await.unwrap();
    let mut subscription = deployment.bus().subscribe(&[(USERS, 3)]).await.unwrap();
    let mut held = take(&mut *subscription, 3).await;
    assert!(timeout(QUIET, subscription.next()).await.is_err(), "a fourth came");
    assert!(subscription.try_next().is_none(), "a fourth came");
    subscription.ack(vec![held.remove(0).token]).await.unwrap();
    assert_eq!(numbers(&take(&mut *subscription, 1).await), [3]);
}

/// A full queue does not starve its neighbour.
pub(crate) async fn every_queue_gets_its_turn(deployment: &mut impl Deployment) {
    let queues = [USERS, Queue::Peers(Partition(0))];
    deployment.bus().publish(numbered(0..500)).await.unwrap();
    deployment.bus().publish(vec![Outgoing::new(Exchange::Peers, "0", body(9999))]).await.unwrap();
    let mut subscription = deployment.bus().subscribe(&queues.clone().map(|queue| (queue, 10))).await.unwrap();
    for _ in 0..100 {
        let delivery = next(&mut *subscription).await;
        if delivery.queue == queues[1] {
            return;
        }
        subscription.ack(vec![delivery.token]).await.unwrap();
    }
    panic!("a hundred messages of one queue came before the other's one");
}

pub(crate) async fn what_cannot_be_routed_is_an_error(deployment: &mut impl Deployment) {
    let mut messages = numbered(0..5);
    messages.push(Outgoing::new(Exchange::Users, "999", body(0)));
    let error = deployment.bus().publish(messages).await.unwrap_err();
    let expected = deployment.topology().exchange_name(Exchange::Users);
    assert!(
        matches!(&error, PublishError::Unroutable { exchange, routing_key } if *exchange == expected && routing_key == "999"),
        "{error}"
    );
    deployment.bus().publish(numbered(5..6)).await.unwrap();
}

pub(crate) async fn an_unknown_inbound_key_is_a_dead_letter(deployment: &mut impl Deployment) {
    deployment.bus().publish(vec![Outgoing::new(Exchange::Inbound, "clinet", body(1))]).await.unwrap();
    let dead = take(&mut *subscribe(deployment, &[Queue::Dead]).await, 1).await;
    assert_eq!((numbers(&dead), &dead[0].queue), (vec![1], &Queue::Dead));
}

pub(crate) async fn dead_letters_keep_their_reason(deployment: &mut impl Deployment) {
    let mut letter = Outgoing::new(Exchange::Dead, "", body(1));
    letter.headers.reason = Some("field `ts`: “tomorrow” is no number".into());
    letter.headers.origin = Some("inbound".into());
    deployment.bus().publish(vec![letter.clone()]).await.unwrap();
    let dead = take(&mut *subscribe(deployment, &[Queue::Dead]).await, 1).await;
    assert_eq!(dead[0].headers, letter.headers);
}

pub(crate) async fn replies_find_their_way(deployment: &mut impl Deployment) {
    let bus = deployment.bus();
    let mut replies = bus.replies();
    bus.publish(vec![Outgoing::new(Exchange::Users, "0", body(1)).wants_reply()]).await.unwrap();
    let question = take(&mut *subscribe(deployment, &[USERS]).await, 1).await;
    let address = question[0].headers.reply_to.as_deref().expect("a reply address");
    for number in [42, 43] {
        bus.reply(address, body(number)).await;
        let reply = timeout(DEADLINE, replies.recv()).await.unwrap().unwrap();
        assert_eq!(reply.body, body(number));
    }
}

pub(crate) async fn a_reply_to_nowhere_harms_nothing(deployment: &mut impl Deployment) {
    let queue = deployment.topology().queue_name(&USERS);
    for address in [queue.as_str(), "", "amq.rabbitmq.reply-to.nobody", &"x".repeat(1000)] {
        deployment.bus().reply(address, body(1)).await;
    }
    deployment.bus().publish(numbered(2..3)).await.unwrap();
    let deliveries = take(&mut *subscribe(deployment, &[USERS]).await, 1).await;
    assert_eq!(numbers(&deliveries), [2], "a reply must not reach a queue of ours");
}

pub(crate) async fn many_publishers_at_once(deployment: &mut impl Deployment) {
    const EACH: u32 = 600;
    let publishers = (0..8u32).map(|publisher| {
        let bus = deployment.bus().clone();
        async move {
            for start in (publisher * EACH..(publisher + 1) * EACH).step_by(60) {
                bus.publish(numbered(start..start + 60)).await.unwrap();
            }
        }
    });
    let mut subscription = subscribe(deployment, &[USERS]).await;
    let consume = async {
        let mut by_publisher = BTreeMap::<u32, Vec<u32>>::new();
        for _ in 0..8 * EACH {
            let delivery = next(&mut *subscription).await;
            by_publisher.entry(number(&delivery) / EACH).or_default().push(number(&delivery));
            subscription.ack(vec![delivery.token]).await.unwrap();
        }
        by_publisher
    };
    let (_, by_publisher) = tokio::join!(futures_util::future::join_all(publishers), consume);
    for (publisher, numbers) in by_publisher {
        assert_eq!(numbers, (publisher * EACH..(publisher + 1) * EACH).collect::<Vec<_>>());
    }
}

pub(crate) async fn declaring_twice_is_fine(deployment: &mut impl Deployment) {
    deployment.bus().publish(numbered(0..1)).await.unwrap();
    deployment.bus().declare().await.unwrap();
    let deliveries = take(&mut *subscribe(deployment, &[USERS]).await, 1).await;
    assert_eq!(numbers(&deliveries), [0]);
}

pub(crate) async fn depths_count_what_waits(deployment: &mut impl Deployment) {
    deployment.bus().publish(numbered(0..7)).await.unwrap();
    let (name, queues) = (deployment.topology().queue_name(&USERS), deployment.topology().queues().len());
    // A broker may count a moment late.
    loop {
        let depths = deployment.bus().depths().await.unwrap();
        assert_eq!(depths.len(), queues);
        if depths.iter().any(|depth| depth.name == name && depth.ready == 7) {
            assert_eq!(depths.iter().map(|depth| depth.ready).sum::<u64>(), 7);
            return;
        }
        sleep(Duration::from_millis(50)).await;
    }
}

pub(crate) async fn next_may_be_cancelled(deployment: &mut impl Deployment) {
    let mut subscription = subscribe(deployment, &[USERS]).await;
    let publish = deployment.bus().publish(numbered(0..50));
    let consume = async {
        let mut taken = Vec::new();
        while taken.len() < 50 {
            if let Ok(delivery) = timeout(Duration::from_micros(50), subscription.next()).await {
                taken.push(delivery.unwrap());
            }
        }
        taken
    };
    let (published, taken) = tokio::join!(publish, consume);
    published.unwrap();
    assert_eq!(numbers(&taken), (0..50).collect::<Vec<_>>());
}

pub(crate) async fn a_closed_bus_says_so(deployment: &mut impl Deployment) {
    let mut subscription = subscribe(deployment, &[USERS]).await;
    deployment.bus().close().await;
    assert!(matches!(deployment.bus().publish(numbered(0..1)).await, Err(PublishError::Closed)));
    assert!(matches!(deployment.bus().subscribe(&[(USERS, 1)]).await.err(), Some(SubscriptionError::Closed)));
    assert!(matches!(subscription.next().await, Err(SubscriptionError::Closed)));
    let edge = Queue::Updates(EdgeName::parse("one").unwrap());
    assert!(matches!(deployment.bus().subscribe(&[(edge, 1)]).await.err(), Some(SubscriptionError::Closed)));
}

/// Messages for [`USERS`] whose bodies count.
pub(crate) fn numbered(range: std::ops::Range<u32>) -> Vec<Outgoing> {
    range.map(|n| Outgoing::new(Exchange::Users, "0", body(n))).collect()
}

pub(crate) fn body(number: u32) -> Bytes {
    Bytes::copy_from_slice(&number.to_be_bytes())
}

pub(crate) fn number(delivery: &Delivery) -> u32 {
    u32::from_be_bytes(delivery.body.as_ref().try_into().expect("a body of ours"))
}

pub(crate) fn numbers(deliveries: &[Delivery]) -> Vec<u32> {
    deliveries.iter().map(number).collect()
}

pub(crate) fn tokens(deliveries: impl IntoIterator<Item = Delivery>) -> Vec<Token> {
    deliveries.into_iter().map(|delivery| delivery.token).collect()
}

pub(crate) async fn next(subscription: &mut dyn Subscription) -> Delivery {
    timeout(DEADLINE, subscription.next()).await.expect("a delivery before the deadline").unwrap()
}

pub(crate) async fn take(subscription: &mut dyn Subscription, count: usize) -> Vec<Delivery> {
    let mut taken = Vec::with_capacity(count);
    while taken.len() < count {
        taken.push(next(subscription).await);
        taken.extend(std::iter::from_fn(|| subscription.try_next()).take(count - taken.len()));
    }
    taken
}

async fn subscribe(deployment: &impl Deployment, queues: &[Queue]) -> Box<dyn Subscription> {
    deployment.bus().subscribe(&queues.iter().map(|queue| (queue.clone(), PREFETCH)).collect::<Vec<_>>()).await.unwrap()
}
