//! Explains what serde did not take: which field is missing or of the wrong type, in words that name it.

use serde_json::{Map, Value};

use super::reject::{Fault, class, cut};

/// What a field may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Is {
    Text,
    Texts,
    Flag,
    Count,
    Millis,
    Number,
    Array,
    Object,
    CountPair,
}

impl Is {
    pub(crate) fn takes(self, value: &Value) -> bool {
        let all = |check: fn(&Value) -> bool| value.as_array().is_some_and(|entries| entries.iter().all(check));
        match self {
            Self::Text => value.is_string(),
            Self::Texts => all(Value::is_string),
            Self::Flag => value.is_boolean(),
            Self::Count | Self::Millis => value.is_u64(),
            Self::Number => value.is_number(),
            Self::Array => value.is_array(),
            Self::Object => value.is_object(),
            Self::CountPair => all(Value::is_u64) && value.as_array().is_some_and(|pair| pair.len() == 2),
        }
    }

    fn rule(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Texts => "an array of texts",
            Self::Flag => "true or false",
            Self::Count => "a whole number",
            Self::Millis => "a whole number of milliseconds",
            Self::Number => "a number",
            Self::Array => "an array",
            Self::Object => "an object",
            Self::CountPair => "two whole numbers",
        }
    }
}

/// A field, what it may be, and whether it has to be there. Null counts as absent.
pub(crate) type Field = (&'static str, Is, bool);

/// The object that `text` is.
pub(crate) fn object(what: &str, text: &str) -> Result<Map<String, Value>, Fault> {
    match serde_json::from_str(text) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(other) => {
            Err(Fault::new(class::FIELD, format!("{what} must be an object, not {}", cut(&other.to_string()))))
        }
        Err(error) => Err(Fault::new(class::JSON, format!("not JSON: {error}"))),
    }
}

/// The field `name`, if it is there and right.
pub(crate) fn typed<'v>(fields: &'v Map<String, Value>, name: &str, is: Is) -> Result<Option<&'v Value>, Fault> {
    match fields.get(name).filter(|value| !value.is_null()) {
        Some(value) if !is.takes(value) => Err(Fault::must(name, is.rule(), cut(&value.to_string()))),
        value => Ok(value),
    }
}

/// The first thing that is wrong with an object.
pub(crate) fn explain(what: &str, text: &str, shape: &[Field]) -> Fault {
    let found = object(what, text).and_then(|fields| shape.iter().try_for_each(|field| check(&fields, *field)));
    found.err().unwrap_or_else(|| Fault::new(class::FIELD, format!("not {what}: {}", cut(text))))
}

fn check(fields: &Map<String, Value>, (name, is, required): Field) -> Result<(), Fault> {
    match typed(fields, name, is)? {
        None if required => Err(Fault::missing(name)),
        _ => Ok(()),
    }
}
