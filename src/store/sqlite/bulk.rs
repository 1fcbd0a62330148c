//! Statements over many rows at once, in a few fixed sizes, so that each is prepared once and never again.

use std::sync::Arc;

use sqlx::error::BoxDynError;
use sqlx::sqlite::{SqliteArguments, SqliteConnection};
use sqlx::{AssertSqlSafe, Error};

/// Rows in one statement: measured, larger ones gain nothing. Each number that is small has its own, because each statement costs the
/// way to SQLite's thread and back.
const SIZES: [usize; 18] = [256, 32, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1];

/// One statement in each size.
pub(super) struct Bulk {
    texts: [Arc<str>; SIZES.len()],
}

impl Bulk {
    /// `head`, then `row` as often as there are rows, with commas, then `tail`.
    pub(super) fn new(head: &str, row: &str, tail: &str) -> Self {
        Self { texts: SIZES.map(|size| format!("{head} {} {tail}", vec![row; size].join(",")).into()) }
    }

    /// Runs it over all `rows`, in order. Answers the last row ID of each piece with the number of rows in it.
    pub(super) async fn run<T>(
        &self,
        connection: &mut SqliteConnection,
        mut rows: &[T],
        bind: impl Fn(&mut SqliteArguments, &T) -> Result<(), BoxDynError>,
    ) -> Result<Vec<Piece>, Error> {
        let mut pieces = Vec::new();
        for (size, text) in SIZES.iter().zip(&self.texts) {
            while rows.len() >= *size {
                let (piece, rest) = rows.split_at(*size);
                let last_id = execute(connection, text, piece, &bind).await?;
                pieces.push(Piece { rows: *size, last_id });
                rows = rest;
            }
        }
        Ok(pieces)
    }
}

/// What one statement did.
pub(super) struct Piece {
    /// How many rows it was given.
    pub(super) rows: usize,
    /// The row ID of its last insertion, if it inserts into a table with row IDs.
    pub(super) last_id: i64,
}

async fn execute<T>(
    connection: &mut SqliteConnection,
    text: &Arc<str>,
    rows: &[T],
    bind: impl Fn(&mut SqliteArguments, &T) -> Result<(), BoxDynError>,
) -> Result<i64, Error> {
    let mut arguments = SqliteArguments::default();
    for row in rows {
        bind(&mut arguments, row).map_err(Error::Encode)?;
    }
    // Safe: the text is made of literals in this module's callers.
    let query = sqlx::query_with(AssertSqlSafe(Arc::clone(text)), arguments);
    Ok(query.execute(connection).await?.last_insert_rowid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_size_takes_what_is_left() {
        assert_eq!(SIZES.last(), Some(&1));
        assert!(SIZES.is_sorted_by(|a, b| a > b));
        assert_eq!(
            &*Bulk::new("INSERT INTO t VALUES", "(?,?)", "").texts[15],
            "INSERT INTO t VALUES (?,?),(?,?),(?,?) "
        );
    }
}
