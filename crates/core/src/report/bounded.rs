//! Lists and free JSON in a body, rejected as soon as they are too long.
//!
//! `[{"":0}]` takes ninety times its length in memory. So values are counted before they are built.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Number, Value};

/// Maximum parts of one question without its metadata: devices, and parameters with all nested
/// values. Each part costs many times its length in memory while the question waits.
pub const MAX_PARTS: usize = 4096;

/// A list of at most `MAX` items.
pub struct BoundedList<T, const MAX: usize>(pub Vec<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for BoundedList<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items<T, const MAX: usize>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Items<T, MAX> {
            type Value = Vec<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of up to {MAX}")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
                let mut items = Vec::new();
                while items.len() < MAX {
                    let Some(item) = list.next_element()? else {
                        return Ok(items);
                    };
                    items.push(item);
                }

                match list.next_element::<IgnoredAny>()? {
                    None => Ok(items),
                    Some(_) => Err(Error::custom(format!(
                        "a list is too long; the maximum is {MAX}"
                    ))),
                }
            }
        }

        deserializer
            .deserialize_seq(Items::<T, MAX>(PhantomData))
            .map(Self)
    }
}

/// Reads a list of up to [`MAX_PARTS`] devices, or none.
pub fn devices<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<String>>, D::Error> {
    let devices = Option::<BoundedList<String, MAX_PARTS>>::deserialize(deserializer)?;
    Ok(devices.map(|BoundedList(devices)| devices))
}

/// Reads parameters of up to [`MAX_PARTS`] values, nested values included.
pub fn parameters<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, Value>, D::Error> {
    struct BoundedParameters;
    impl<'de> Visitor<'de> for BoundedParameters {
        type Value = BTreeMap<String, Value>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object of parameters")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let (mut parameters, mut left) = (BTreeMap::new(), MAX_PARTS);
            while let Some(name) = map.next_key()? {
                parameters.insert(name, map.next_value_seed(CountedItems { left: &mut left })?);
            }
            Ok(parameters)
        }
    }

    deserializer.deserialize_map(BoundedParameters)
}

/// Any JSON value, of which at most `left` values are built.
struct CountedItems<'a> {
    left: &'a mut usize,
}

impl<'de> DeserializeSeed<'de> for CountedItems<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        *self.left = self.left.checked_sub(1).ok_or_else(|| {
            Error::custom(format!(
                "`engine.parameters` holds too many values; the maximum is {MAX_PARTS}"
            ))
        })?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for CountedItems<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(CountedItems {
            left: &mut *self.left,
        })? {
            values.push(value);
        }

        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut values = Map::new();
        while let Some(key) = map.next_key()? {
            values.insert(
                key,
                map.next_value_seed(CountedItems {
                    left: &mut *self.left,
                })?,
            );
        }

        Ok(Value::Object(values))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::report::Question;

    fn read(parameters: &str) -> serde_json::Result<BTreeMap<String, Value>> {
        let text =
            format!(r#"{{"model": {{"repo": "a/b"}}, "engine": {{"parameters": {parameters}}}}}"#);
        serde_json::from_str::<Question>(&text).map(|question| question.engine.parameters)
    }

    #[test]
    fn parameters_read_as_plain_json() {
        let text = r#"{"a": null, "b": [true, -1, 18446744073709551615, 0.9, 1e99], "c": {"d": "x\n", "": []}, "e": 1E400}"#;
        let whole: Result<BTreeMap<String, Value>, _> = serde_json::from_str(text);
        assert_eq!(
            read(text).map_err(|error| error.to_string()).is_err(),
            whole.is_err()
        );
        let text = text.replace("1E400", "-0.0");
        assert_eq!(read(&text).unwrap(), serde_json::from_str(&text).unwrap());
    }

    #[test]
    fn excess_is_rejected_before_rest() {
        let list = |item: &str, count: usize, rest: &str| {
            format!(r#"{{"x": [{}{rest}"#, vec![item; count].join(","))
        };

        assert_eq!(
            read(&list("0", MAX_PARTS - 1, "]}")).unwrap()["x"],
            json!(vec![0; MAX_PARTS - 1])
        );
        for (item, count) in [
            ("0", MAX_PARTS),
            ("[0]", MAX_PARTS / 2),
            (r#"{"":0}"#, MAX_PARTS / 2),
            ("{}", MAX_PARTS),
        ] {
            // The rest is no JSON and is never reached.
            let why = read(&list(item, count, "?")).unwrap_err().to_string();
            assert!(
                why.contains("`engine.parameters` holds too many values"),
                "{item}: {why}"
            );
        }

        let names: Vec<String> = (0..=MAX_PARTS)
            .map(|name| format!(r#""{name}":0"#))
            .collect();
        let why = read(&format!("{{{}?", names.join(",")))
            .unwrap_err()
            .to_string();
        assert!(why.contains("the maximum is 4096"), "{why}");

        let devices = |count: usize, rest: &str| {
            let list = vec![r#""""#; count].join(",");
            let text = format!(
                r#"{{"model": {{"repo": "a/b"}}, "constraints": {{"devices": [{list}{rest}"#
            );
            serde_json::from_str::<Question>(&text)
                .map(|question| question.constraints.devices.map(|list| list.len()))
        };

        assert_eq!(devices(MAX_PARTS, "]}}").unwrap(), Some(MAX_PARTS));
        let why = devices(MAX_PARTS + 1, "?").unwrap_err().to_string();
        assert!(
            why.contains("a list is too long; the maximum is 4096"),
            "{why}"
        );
    }

    #[test]
    fn context_is_number_or_max() {
        let context = |text: &str| {
            serde_json::from_str::<Question>(&format!(
                r#"{{"model": {{"repo": "a/b"}}, "workload": {{"context": {text}}}}}"#
            ))
            .map(|question| serde_json::to_string(&question.workload.context).unwrap())
            .map_err(|error| error.to_string())
        };

        for good in ["8192", "\"max\"", "null"] {
            assert_eq!(context(good).as_deref(), Ok(good));
        }

        for bad in ["[0,0,?", "{\"\":?", "-1", "1.5", "\"least\"", "true"] {
            let why = context(bad).unwrap_err();
            assert!(
                why.contains("expected a number of tokens or \"max\""),
                "{bad}: {why}"
            );
        }
    }
}
