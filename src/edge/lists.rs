//! Answers that may be long: bounded in sum and by user, for as long as a client takes to read them.

use std::time::Duration;

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use serde::Serializer as _;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use super::body::{Budget, units};
use super::error::MatrixError;
use super::shares::Shares;
use crate::model::UserId;

/// Bytes of answers that wait to be read.
const MAX_BYTES: usize = 128 << 20;
/// And of those of one user, whose longest list takes all of it.
const MAX_BYTES_OF_ONE: usize = 8 << 20;
/// Lists that are read and written down at once.
const TURNS: usize = 4;
/// What a client is told to wait.
const RETRY: Duration = Duration::from_secs(1);

/// See the module.
pub(crate) struct Lists {
    /// One of each user, so that whoever asks again and again waits for themselves.
    turns_of_one: Shares<UserId>,
    turns: Semaphore,
    budget: Budget,
    shares: Shares<UserId>,
    of_one: usize,
}

/// An answer, and its room until it has left.
struct Kept {
    text: Vec<u8>,
    _room: [OwnedSemaphorePermit; 2],
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.text
    }
}

impl Lists {
    pub(crate) fn new() -> Self {
        Self::with(MAX_BYTES, MAX_BYTES_OF_ONE)
    }

    fn with(all: usize, of_one: usize) -> Self {
        Self {
            turns_of_one: Shares::new(1),
            turns: Semaphore::new(TURNS),
            budget: Budget::new(all),
            shares: Shares::new(units(of_one) as usize),
            of_one,
        }
    }

    /// Leave to read a list of `user` and to write it down; 429 if that comes to nothing, because they have not read those before.
    pub(crate) async fn turn(&self, user: &UserId) -> Result<(OwnedSemaphorePermit, SemaphorePermit<'_>), MatrixError> {
        let open = "the semaphore is never closed";
        let own = self.turns_of_one.of_owner(user.clone()).acquire_owned().await.expect(open);
        if self.shares.of_owner(user.clone()).available_permits() == 0 {
            return Err(unread());
        }
        Ok((own, self.turns.acquire().await.expect(open)))
    }

    /// The answer to `user`. 429 if they have not read enough of those before, 503 if all others have not.
    pub(crate) fn answer(&self, user: &UserId, entries: impl Iterator<Item = Value>) -> Result<Response, MatrixError> {
        let mut text = Vec::new();
        serde_json::Serializer::new(&mut text).collect_seq(entries).expect("values are JSON");
        text.shrink_to_fit();
        let of_share = units(text.len().min(self.of_one));
        let of_share = self.shares.of_owner(user.clone()).try_acquire_many_owned(of_share).map_err(|_| unread())?;
        let of_all = self.budget.take(text.len());
        let of_all = of_all.ok_or_else(|| MatrixError::busy("too many answers wait to be read", RETRY))?;
        let body = Body::from(Bytes::from_owner(Kept { text, _room: [of_share, of_all] }));
        Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
    }
}

fn unread() -> MatrixError {
    MatrixError::too_many("answers before this one wait to be read", RETRY)
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;
    use futures_util::poll;

    use super::*;

    fn user(name: &str) -> UserId {
        UserId::parse(&format!("@{name}:a.example")).unwrap()
    }

    /// An entry of 1,000 bytes or so.
    fn entry() -> Value {
        Value::from("a".repeat(1_000))
    }

    fn refusal(result: Result<Response, MatrixError>) -> StatusCode {
        result.map(|_| ()).unwrap_err().status()
    }

    #[tokio::test]
    async fn answers_that_nobody_reads_are_bounded_by_user_and_in_sum() {
        let lists = Lists::with(6 << 10, 4 << 10);
        let answer = |name: &str, entries| lists.answer(&user(name), std::iter::repeat_with(entry).take(entries));
        let unread = answer("john", 3).unwrap();
        assert_eq!(refusal(answer("john", 3)), StatusCode::TOO_MANY_REQUESTS);
        let of_another = answer("mary", 2).unwrap();
        assert_eq!(refusal(answer("peter", 2)), StatusCode::SERVICE_UNAVAILABLE);
        let text = axum::body::to_bytes(unread.into_body(), usize::MAX).await.unwrap();
        assert_eq!(serde_json::from_slice::<Vec<Value>>(&text).unwrap(), vec![entry(); 3]);
        assert_eq!(refusal(answer("john", 3)), StatusCode::TOO_MANY_REQUESTS, "it is not gone yet");
        drop(text);
        drop(of_another);
        assert!(answer("john", 3).is_ok());
    }

    #[tokio::test]
    async fn the_longest_answer_takes_the_whole_share() {
        let lists = Lists::with(6 << 10, 4 << 10);
        let unread = lists.answer(&user("john"), std::iter::repeat_with(entry).take(100)).unwrap();
        let early = lists.turn(&user("john")).await.map(drop).unwrap_err();
        assert_eq!(early.status(), StatusCode::TOO_MANY_REQUESTS, "before anything is read");
        drop(unread);
        assert!(lists.turn(&user("john")).await.is_ok());
    }

    #[tokio::test]
    async fn one_user_has_one_turn() {
        let lists = Lists::new();
        let _reading = lists.turn(&user("john")).await.unwrap();
        let mut again: Vec<_> = (0..2 * TURNS).map(|_| Box::pin(async { lists.turn(&user("john")).await })).collect();
        for turn in &mut again {
            assert!(poll!(turn).is_pending());
        }
        assert!(poll!(Box::pin(async { lists.turn(&user("mary")).await })).is_ready());
    }
}
