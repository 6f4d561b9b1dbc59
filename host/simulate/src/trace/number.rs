//! A number of 64 bits in JSON so that it comes back the same: as a number where that does, and else as a text.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Number(f64),
    Text(String),
}

// serde's own form of such a function.
#[allow(clippy::trivially_copy_pass_by_ref, clippy::ref_option, reason = "serde calls it so")]
pub(super) fn serialize<S: Serializer>(value: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    value.map(written).serialize(serializer)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    match Option::<Written>::deserialize(deserializer)? {
        None => Ok(None),
        Some(Written::Number(number)) => Ok(Some(number)),
        Some(Written::Text(text)) => text.parse().map(Some).map_err(serde::de::Error::custom),
    }
}

fn written(number: f64) -> Written {
    // What a reader makes of the number that it finds, its last digit included.
    let read = serde_json::to_string(&number).ok().and_then(|text| serde_json::from_str::<f64>(&text).ok());
    if read.is_some_and(|read| read.to_bits() == number.to_bits()) {
        Written::Number(number)
    } else {
        Written::Text(number.to_string())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::format::SignalFacts;

    proptest! {
        #[test]
        fn every_number_comes_back_as_it_was(bits: u64) {
            let value = f64::from_bits(bits);
            let facts = SignalFacts { database: String::new(), signal: String::new(), value: Some(value), age_ms: 0 };
            let text = serde_json::to_string(&facts).unwrap();
            let read: SignalFacts = serde_json::from_str(&text).unwrap();
            let read = read.value.unwrap();
            prop_assert!(read.to_bits() == bits || read.is_nan() && value.is_nan(), "{text}");
        }
    }
}
