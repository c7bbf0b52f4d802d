//! Lists and free JSON in a body, refused as soon as they are too long.
//!
//! `[{"":0}]` takes ninety times its length once it is built. So nothing is built that is only
//! counted afterwards.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Number, Value};

/// Most parts of one question beside its metadata: devices, and parameters with all that is in
/// them. Each costs many times its length in memory for as long as the question waits.
pub const PARTS: usize = 4096;

/// A list of no more than `MOST` items.
pub struct AtMost<T, const MOST: usize>(pub Vec<T>);

impl<'de, T: Deserialize<'de>, const MOST: usize> Deserialize<'de> for AtMost<T, MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items<T, const MOST: usize>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for Items<T, MOST> {
            type Value = Vec<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of up to {MOST}")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
                let mut items = Vec::new();
                while items.len() < MOST {
                    let Some(item) = list.next_element()? else {
                        return Ok(items);
                    };
                    items.push(item);
                }

                match list.next_element::<IgnoredAny>()? {
                    None => Ok(items),
                    Some(_) => Err(Error::custom(format!(
                        "a list is too long; the most is {MOST}"
                    ))),
                }
            }
        }

        deserializer
            .deserialize_seq(Items::<T, MOST>(PhantomData))
            .map(Self)
    }
}

/// A list of up to [`PARTS`] devices, or none.
pub fn devices<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<String>>, D::Error> {
    let devices = Option::<AtMost<String, PARTS>>::deserialize(deserializer)?;
    Ok(devices.map(|AtMost(devices)| devices))
}

/// Parameters of up to [`PARTS`] values, counting all that are in them.
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
            let (mut parameters, mut left) = (BTreeMap::new(), PARTS);
            while let Some(name) = map.next_key()? {
                parameters.insert(name, map.next_value_seed(CountedItems { left: &mut left })?);
            }
            Ok(parameters)
        }
    }

    deserializer.deserialize_map(BoundedParameters)
}

/// Any JSON value of which no more is built than may be `left`.
struct CountedItems<'a> {
    left: &'a mut usize,
}

impl<'de> DeserializeSeed<'de> for CountedItems<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        *self.left = self.left.checked_sub(1).ok_or_else(|| {
            Error::custom(format!(
                "`engine.parameters` holds too many values; the most is {PARTS}"
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
    fn parameters_are_read_as_any_json_is() {
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
    fn what_is_too_much_is_refused_before_the_rest_of_it_is_looked_at() {
        let list = |item: &str, count: usize, rest: &str| {
            format!(r#"{{"x": [{}{rest}"#, vec![item; count].join(","))
        };

        assert_eq!(
            read(&list("0", PARTS - 1, "]}")).unwrap()["x"],
            json!(vec![0; PARTS - 1])
        );
        for (item, count) in [
            ("0", PARTS),
            ("[0]", PARTS / 2),
            (r#"{"":0}"#, PARTS / 2),
            ("{}", PARTS),
        ] {
            // What comes after is no JSON, and is not reached.
            let why = read(&list(item, count, "?")).unwrap_err().to_string();
            assert!(
                why.contains("`engine.parameters` holds too many values"),
                "{item}: {why}"
            );
        }

        let names: Vec<String> = (0..=PARTS).map(|name| format!(r#""{name}":0"#)).collect();
        let why = read(&format!("{{{}?", names.join(",")))
            .unwrap_err()
            .to_string();
        assert!(why.contains("the most is 4096"), "{why}");

        let devices = |count: usize, rest: &str| {
            let list = vec![r#""""#; count].join(",");
            let text = format!(
                r#"{{"model": {{"repo": "a/b"}}, "constraints": {{"devices": [{list}{rest}"#
            );
            serde_json::from_str::<Question>(&text)
                .map(|question| question.constraints.devices.map(|list| list.len()))
        };

        assert_eq!(devices(PARTS, "]}}").unwrap(), Some(PARTS));
        let why = devices(PARTS + 1, "?").unwrap_err().to_string();
        assert!(
            why.contains("a list is too long; the most is 4096"),
            "{why}"
        );
    }

    #[test]
    fn a_context_is_a_number_or_one_word_and_nothing_else_is_built() {
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
