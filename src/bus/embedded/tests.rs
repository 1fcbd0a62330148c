//! What may happen between planning a read and its end. The rest is tested through the trait, over a real store.

use std::sync::Arc;

use bytes::Bytes;

use super::line::{Read, SubId};
use super::state::{State, Step};
use crate::bus::Topology;
use crate::store::sqlite::bus::{BusRow, StoredRow};

const QUEUE: &str = "p.outbound";

fn state(rows: u64) -> State {
    let mut state = State::new(&Topology { prefix: "p.".into(), partitions: 1 });
    state.counted(&[(QUEUE.into(), rows)]);
    state
}

fn subscribe(state: &mut State, prefetch: usize) -> SubId {
    state.subscribe(&[Arc::from(QUEUE)], prefetch).0
}

fn insert(state: &mut State, id: i64) {
    state.inserted(id, &BusRow { queue: QUEUE.into(), body: Bytes::new(), headers: None });
}

fn rows(ids: &[i64]) -> Vec<StoredRow> {
    ids.iter().map(|id| StoredRow { id: *id, body: Bytes::new(), headers: None, deliveries: 0 }).collect()
}

fn read(state: &mut State, id: SubId) -> Read {
    match state.step(id) {
        Step::Read(read) => read,
        Step::Deliver(delivery) => panic!("delivered {delivery:?}"),
        Step::Wait | Step::Closed => panic!("nothing to read"),
    }
}

fn delivered(state: &mut State, id: SubId) -> Vec<u64> {
    std::iter::from_fn(|| state.take(id)).map(|delivery| delivery.token.0).collect()
}

#[test]
fn a_row_that_was_deleted_while_being_read_is_not_delivered_again() {
    let mut state = state(2);
    let (first, second) = (subscribe(&mut state, 10), subscribe(&mut state, 10));
    let plan = read(&mut state, first);
    state.accept(first, &plan, rows(&[1, 2]));
    let mut taken = vec![state.take(first).unwrap(), state.take(first).unwrap()];
    state.acknowledge(first, &[taken.pop().unwrap().token]);
    // Row 1 comes back; a read sees row 2 just before it is gone.
    state.unsubscribe(first);
    let plan = read(&mut state, second);
    state.deleted(2);
    state.accept(second, &plan, rows(&[1, 2]));
    assert_eq!(delivered(&mut state, second), [0; 0], "things have moved");
    let plan = read(&mut state, second);
    state.accept(second, &plan, rows(&[1]));
    assert_eq!(delivered(&mut state, second), [1]);
}

#[test]
fn two_reads_of_the_same_rows_deliver_them_once() {
    let mut state = state(2);
    let (first, second) = (subscribe(&mut state, 10), subscribe(&mut state, 10));
    let plans = (read(&mut state, first), read(&mut state, second));
    state.accept(first, &plans.0, rows(&[1, 2]));
    state.accept(second, &plans.1, rows(&[1, 2]));
    assert_eq!(delivered(&mut state, first), [1, 2]);
    assert_eq!(delivered(&mut state, second), [0; 0]);
}

#[test]
fn a_row_that_is_committed_during_a_read_is_read_next() {
    let mut state = state(1);
    let only = subscribe(&mut state, 10);
    let plan = read(&mut state, only);
    insert(&mut state, 7);
    state.accept(only, &plan, rows(&[1]));
    assert_eq!(delivered(&mut state, only), [1]);
    let plan = read(&mut state, only);
    assert!(plan.after < 7);
    state.accept(only, &plan, rows(&[7]));
    assert_eq!(delivered(&mut state, only), [7]);
    assert!(matches!(state.step(only), Step::Wait));
}

#[test]
fn a_queue_that_is_caught_up_hands_over_up_to_the_prefetch() {
    let mut state = state(0);
    let only = subscribe(&mut state, 2);
    (1..=3).for_each(|id| insert(&mut state, id));
    assert_eq!(delivered(&mut state, only), [1, 2]);
    assert!(matches!(state.step(only), Step::Wait), "the third waits in the table");
    state.unsubscribe(only);
    let next = subscribe(&mut state, 2);
    assert_eq!(read(&mut state, next).after, 0, "what came back comes first");
}

#[test]
fn depths_count_what_is_ready_out_and_leaving() {
    let mut state = state(0);
    let only = subscribe(&mut state, 2);
    (1..=5).for_each(|id| insert(&mut state, id));
    let first = state.take(only).unwrap();
    let depth = |state: &State| {
        let depth = state.depths().into_iter().find(|depth| depth.name == QUEUE).unwrap();
        (depth.ready, depth.unacked.unwrap())
    };
    assert_eq!(depth(&state), (3, 2));
    state.acknowledge(only, &[first.token]);
    assert_eq!(depth(&state), (3, 1));
    assert_eq!(state.take_chores(10).deletes, [1]);
    state.deleted(1);
    assert_eq!(depth(&state), (3, 1));
}
