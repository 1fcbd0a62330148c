//! What people and scripts read: answers on stdout, complaints on stderr. Logs are elsewhere.

use std::io::{Write, stderr, stdout};

use anyhow::Result;

/// Prints a line. A closed pipe is an error, so that long outputs end early.
pub(super) fn line(text: &str) -> Result<()> {
    let mut stdout = stdout().lock();
    writeln!(stdout, "{text}")?;
    Ok(stdout.flush()?)
}

/// Prints a table with its columns lined up: `<` and `>` say to which side.
pub(super) fn table(sides: &str, rows: &[Vec<String>]) -> Result<()> {
    let columns = sides.len();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in rows {
        let cells = row.iter().zip(sides.chars()).zip(&widths).map(|((cell, side), width)| match side {
            '>' => format!("{cell:>width$}"),
            _ => format!("{cell:<width$}"),
        });
        line(cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

/// Prints a complaint.
pub(super) fn error(text: &str) {
    // There is nowhere left to say that this failed.
    let _ = writeln!(stderr().lock(), "{text}");
}
