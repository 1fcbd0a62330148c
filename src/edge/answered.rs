//! Which transactions were answered of late. It only saves work: what is applied twice changes nothing more.

use std::future::Future;
use std::time::Duration;

use moka::future::Cache;
use moka::policy::EvictionPolicy;

use super::error::MatrixError;
use crate::model::ServerName;

/// Transactions remembered.
const MAX: u64 = 10_000;
/// For how long: a peer that heard nothing tries again well before. No longer, because a repeat that is answered from here is not heard of
/// by its link, whose watchdogs ask for a word a minute (W4).
const KEPT: Duration = Duration::from_secs(60);

/// Transactions by origin and ID (Matrix spec, server-server API, transactions): an ID is never used for other content.
pub(crate) struct Answered(Cache<(ServerName, Box<str>), ()>);

impl Answered {
    pub(crate) fn new() -> Self {
        Self(Cache::builder().max_capacity(MAX).eviction_policy(EvictionPolicy::lru()).time_to_live(KEPT).build())
    }

    /// Does `work` for a transaction, unless that was done; whoever brings the same one meanwhile waits for the same end. What failed
    /// is not remembered.
    pub(crate) async fn once(
        &self,
        origin: ServerName,
        txn_id: &str,
        work: impl Future<Output = Result<(), MatrixError>>,
    ) -> Result<(), MatrixError> {
        let done = self.0.try_get_with((origin, txn_id.into()), work).await;
        done.map_err(|error| MatrixError::clone(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_failed_is_done_again_and_what_was_done_is_not() {
        let answered = Answered::new();
        let origin = |name| ServerName::parse(name).unwrap();
        let once = async |name, txn_id, result: Result<(), MatrixError>| {
            let mut ran = false;
            let work = async {
                ran = true;
                result
            };
            let end = answered.once(origin(name), txn_id, work).await;
            (ran, end)
        };
        let error = MatrixError::unrecognized();
        assert_eq!(once("b.example", "1", Err(error.clone())).await, (true, Err(error)));
        assert_eq!(once("b.example", "1", Ok(())).await, (true, Ok(())));
        assert_eq!(once("b.example", "1", Ok(())).await, (false, Ok(())));
        assert_eq!(once("b.example", "2", Ok(())).await, (true, Ok(())));
        assert_eq!(once("c.example", "1", Ok(())).await, (true, Ok(())), "another's ID is another's");
    }

    #[tokio::test]
    async fn what_was_answered_is_remembered_up_to_a_bound() {
        let (answered, origin) = (Answered::new(), ServerName::parse("b.example").unwrap());
        for n in 0..MAX + 100 {
            answered.once(origin.clone(), &n.to_string(), async { Ok(()) }).await.unwrap();
        }
        answered.0.run_pending_tasks().await;
        assert!(answered.0.entry_count() <= MAX);
    }
}
