//! Reads values by key. A mistake is recorded and the default taken instead, so that all mistakes are found in one go.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use figment::Figment;
use figment::value::{Num, Value};

use super::{ConfigError, files, layers, values};

/// How much of a given value a message repeats, in characters.
const GIVEN_MAX: usize = 100;

/// Reads values, collects mistakes.
pub(super) struct Reader<'a> {
    figment: Figment,
    defaults: Figment,
    errors: &'a mut Vec<ConfigError>,
    read: BTreeSet<&'static str>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(figment: Figment, errors: &'a mut Vec<ConfigError>) -> Self {
        Self { figment, defaults: layers::defaults(), errors, read: BTreeSet::new() }
    }

    /// The keys that were read so far.
    #[cfg(test)]
    pub(super) fn keys_read(&self) -> &BTreeSet<&'static str> {
        &self.read
    }

    /// Whatever `parse` makes of the value.
    pub(super) fn value<T>(&mut self, key: &'static str, parse: impl Fn(&Value) -> Result<T, String>) -> T {
        self.value_shown(key, parse, display)
    }

    /// The same, where a message may show only what `show` lets through.
    pub(super) fn value_shown<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&Value) -> Result<T, String>,
        show: impl Fn(&Value) -> String,
    ) -> T {
        self.read.insert(key);
        let value = find(&self.figment, key);
        parse(&value).unwrap_or_else(|reason| {
            self.record(key, reason, &show(&value));
            parse(&find(&self.defaults, key)).expect("the compiled-in defaults are right: a test reads them")
        })
    }

    /// The value of a key that holds a secret, or what the file says that the other key names: one text, or several, a line each.
    pub(super) fn value_or_file<T>(
        &mut self,
        (key, file_key): (&'static str, &'static str),
        parse: impl Fn(&Value) -> Result<T, String>,
        show: impl Fn(&Value) -> String,
    ) -> T {
        let Some(path) = self.path(file_key) else { return self.value_shown(key, parse, show) };
        self.read.insert(key);
        let (given, default) = (find(&self.figment, key), find(&self.defaults, key));
        if given != default {
            self.record(key, format!("must not be set beside {file_key}"), &show(&given));
        }
        files::secret(&path).and_then(|value| parse(&value)).unwrap_or_else(|reason| {
            self.record(file_key, reason, &path.display().to_string());
            parse(&default).expect("the compiled-in defaults are right: a test reads them")
        })
    }

    /// Records a mistake that only shows beside other keys.
    pub(super) fn conflict(&mut self, key: &'static str, reason: impl Into<String>) {
        let value = find(&self.figment, key);
        self.record(key, reason.into(), &display(&value));
    }

    /// Records a mistake within the value of `key`.
    pub(super) fn record_within(&mut self, key: &'static str, inner: &str, reason: String, given: &str) {
        let place = self.place(key);
        self.errors.push(ConfigError {
            key: format!("{key}.{inner}"),
            reason,
            given: Some(format!("{given:?}")),
            place,
        });
    }

    /// A text that may be empty, which means unset.
    pub(super) fn optional<T>(&mut self, key: &'static str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        self.parsed(key, |text| if text.is_empty() { Ok(None) } else { parse(text).map(Some) })
    }

    pub(super) fn path(&mut self, key: &'static str) -> Option<PathBuf> {
        self.optional(key, |text| Ok(PathBuf::from(text)))
    }

    pub(super) fn parsed<T>(&mut self, key: &'static str, parse: impl Fn(&str) -> Result<T, String>) -> T {
        self.value(key, |value| parse(as_text(value)?))
    }

    pub(super) fn listener(&mut self, key: &'static str) -> SocketAddr {
        self.parsed(key, |text| {
            text.parse().map_err(|_| "is not an address and port such as \"127.0.0.1:8470\"".into())
        })
    }

    pub(super) fn flag(&mut self, key: &'static str) -> bool {
        self.value(key, |value| match value {
            Value::Bool(_, flag) => Ok(*flag),
            Value::String(_, text) if text == "true" => Ok(true),
            Value::String(_, text) if text == "false" => Ok(false),
            _ => Err("is neither true nor false".into()),
        })
    }

    pub(super) fn choice<T: Copy>(&mut self, key: &'static str, choices: &[(&str, T)]) -> T {
        let names: Vec<_> = choices.iter().map(|(name, _)| format!("{name:?}")).collect();
        self.parsed(key, |text| {
            let chosen = choices.iter().find(|(name, _)| *name == text);
            chosen.map(|(_, choice)| *choice).ok_or_else(|| format!("must be one of {}", names.join(", ")))
        })
    }

    pub(super) fn duration(&mut self, key: &'static str, bounds: (&str, &str)) -> Duration {
        let bound = |text| values::duration(text).expect("bounds are written as durations");
        let bounds = bound(bounds.0)..=bound(bounds.1);
        self.parsed(key, |text| within(values::duration(text)?, &bounds, values::display_duration))
    }

    pub(super) fn number<T>(&mut self, key: &'static str, bounds: RangeInclusive<T>) -> T
    where
        T: TryFrom<u64> + PartialOrd + Copy + Display,
    {
        self.value(key, |value| {
            let number = as_number(value).ok_or("is not a whole number")?;
            let number = T::try_from(number).map_err(|_| outside(&bounds, T::clone))?;
            within(number, &bounds, T::clone)
        })
    }

    pub(super) fn size(&mut self, key: &'static str, bounds: RangeInclusive<u64>) -> usize {
        let size = self.value(key, |value| match value {
            Value::Num(..) => within(as_number(value).ok_or("is not a whole number")?, &bounds, u64::clone),
            _ => within(values::size(as_text(value)?)?, &bounds, u64::clone),
        });
        usize::try_from(size).expect("bounds of sizes are far below 4 GiB")
    }

    fn record(&mut self, key: &'static str, reason: String, given: &str) {
        let given = given.chars().take(GIVEN_MAX).collect();
        let place = self.place(key);
        self.errors.push(ConfigError { key: key.into(), reason, given: Some(given), place });
    }

    fn place(&self, key: &str) -> String {
        match self.figment.find_metadata(key) {
            Some(metadata) => metadata.name.clone().into_owned(),
            None => "the defaults".into(),
        }
    }
}

fn find(figment: &Figment, key: &str) -> Value {
    figment.find_value(key).expect("every key that is read has a default: a test reads them")
}

/// A value as it was given, for messages.
fn display(value: &Value) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| "something unprintable".into())
}

pub(super) fn as_text(value: &Value) -> Result<&str, String> {
    value.as_str().ok_or_else(|| "is not a text: put it in quotes".into())
}

/// One text, or a list of them.
pub(super) fn as_texts(value: &Value) -> Result<Vec<String>, String> {
    match value {
        Value::Array(_, members) => members.iter().map(|member| as_text(member).map(Into::into)).collect(),
        single => Ok(vec![as_text(single)?.into()]),
    }
}

fn as_number(value: &Value) -> Option<u64> {
    match value {
        Value::Num(_, Num::F32(_) | Num::F64(_)) => None,
        Value::Num(_, number) => {
            number.to_u128().or_else(|| number.to_i128()?.try_into().ok()).and_then(|number| number.try_into().ok())
        }
        Value::String(_, text) => text.parse().ok(),
        _ => None,
    }
}

fn within<T: PartialOrd + Copy, D: Display>(
    value: T,
    bounds: &RangeInclusive<T>,
    show: impl Fn(&T) -> D + Copy,
) -> Result<T, String> {
    if bounds.contains(&value) { Ok(value) } else { Err(outside(bounds, show)) }
}

fn outside<T, D: Display>(bounds: &RangeInclusive<T>, show: impl Fn(&T) -> D) -> String {
    format!("must be from {} to {}", show(bounds.start()), show(bounds.end()))
}
