//! JSON in which only an object is an object.
//!
//! serde's derive also reads a struct from an array, field by field: `[5]` is read as
//! `{"seconds": 5}`. A client that confuses the two would get an answer to another question.
//! [`from_slice`] and [`from_str`] reject arrays for every struct at every depth. They wrap
//! serde_json's deserializer and forward everything else.
//!
//! Two attributes make serde buffer values, which bypasses the wrapper. A field with
//! `#[serde(flatten)]` needs `deserialize_with = "strict_json::nested"` as well, and so does a
//! struct inside an internally tagged enum; the field that holds such an enum needs
//! `deserialize_with = "strict_json::tagged"`.

use std::fmt;

use serde::de::{
    Deserialize, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess,
    SeqAccess, VariantAccess, Visitor,
};

/// Reads `json`, as [`serde_json::from_slice`] does.
pub fn from_slice<T: DeserializeOwned>(json: &[u8]) -> serde_json::Result<T> {
    read_all(serde_json::Deserializer::from_slice(json))
}

/// Reads `json`, as [`serde_json::from_str`] does.
pub fn from_str<T: DeserializeOwned>(json: &str) -> serde_json::Result<T> {
    read_all(serde_json::Deserializer::from_str(json))
}

/// Reads one value and rejects trailing text.
fn read_all<'de, T: DeserializeOwned>(
    mut deserializer: serde_json::Deserializer<impl serde_json::de::Read<'de>>,
) -> serde_json::Result<T> {
    let value = nested(&mut deserializer)?;
    deserializer.end()?;

    Ok(value)
}

/// Reads a value from a deserializer of buffered values; use it with `deserialize_with`.
pub fn nested<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    T::deserialize(Strict {
        inner: deserializer,
        any: Arrays::Accepted,
    })
}

/// Reads an internally tagged enum, or `None`; use it with `deserialize_with`.
///
/// For such an enum serde asks for any value, and would accept an array whose first item is the
/// tag.
pub fn tagged<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    T::deserialize(Strict {
        inner: deserializer,
        any: Arrays::Rejected,
    })
}

/// Whether a visitor accepts an array.
#[derive(Clone, Copy)]
enum Arrays {
    Accepted,
    Rejected,
}

/// A wrapper of a serde type that rejects arrays in place of structs in everything read through it.
struct Strict<I> {
    inner: I,
    /// Whether an array is accepted if any value is requested.
    any: Arrays,
}

impl<I> Strict<I> {
    fn new(inner: I) -> Self {
        Self {
            inner,
            any: Arrays::Accepted,
        }
    }
}

/// A visitor that forwards everything, but rejects an array in place of a struct.
struct Guard<V> {
    inner: V,
    arrays: Arrays,
}

impl<V> Guard<V> {
    fn new(inner: V) -> Self {
        Self {
            inner,
            arrays: Arrays::Accepted,
        }
    }

    fn objects_only(inner: V) -> Self {
        Self {
            inner,
            arrays: Arrays::Rejected,
        }
    }
}

/// A seed whose value is read through [`Strict`].
struct Seed<S>(S);

/// The methods of the deserializer that take only a visitor.
macro_rules! forward_deserializer {
    ($($method:ident)+) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            self.inner.$method(Guard::new(visitor))
        })+
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Strict<D> {
    type Error = D::Error;

    forward_deserializer! {
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128 deserialize_u8
        deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128 deserialize_f32 deserialize_f64
        deserialize_char deserialize_str deserialize_string deserialize_bytes deserialize_byte_buf
        deserialize_unit deserialize_seq deserialize_map deserialize_identifier deserialize_ignored_any
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_any(Guard {
            inner: visitor,
            arrays: self.any,
        })
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        // The content of an option is read by the same rule.
        self.inner.deserialize_option(Guard {
            inner: visitor,
            arrays: self.any,
        })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner
            .deserialize_struct(name, fields, Guard::objects_only(visitor))
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner
            .deserialize_unit_struct(name, Guard::new(visitor))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner
            .deserialize_newtype_struct(name, Guard::new(visitor))
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner.deserialize_tuple(length, Guard::new(visitor))
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner
            .deserialize_tuple_struct(name, length, Guard::new(visitor))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner
            .deserialize_enum(name, variants, Guard::new(visitor))
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

/// The methods of the visitor for plain values.
macro_rules! forward_visitor {
    ($($method:ident: $type:ty,)+) => {
        $(fn $method<E: Error>(self, value: $type) -> Result<V::Value, E> {
            self.inner.$method(value)
        })+
    };
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Guard<V> {
    type Value = V::Value;

    forward_visitor! {
        visit_bool: bool,
        visit_i8: i8,
        visit_i16: i16,
        visit_i32: i32,
        visit_i64: i64,
        visit_i128: i128,
        visit_u8: u8,
        visit_u16: u16,
        visit_u32: u32,
        visit_u64: u64,
        visit_u128: u128,
        visit_f32: f32,
        visit_f64: f64,
        visit_char: char,
        visit_str: &str,
        visit_borrowed_str: &'de str,
        visit_string: String,
        visit_bytes: &[u8],
        visit_borrowed_bytes: &'de [u8],
        visit_byte_buf: Vec<u8>,
    }

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.inner.visit_some(Strict {
            inner: deserializer,
            any: self.arrays,
        })
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> Result<V::Value, D::Error> {
        self.inner.visit_newtype_struct(Strict::new(deserializer))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<V::Value, A::Error> {
        match self.arrays {
            Arrays::Accepted => self.inner.visit_seq(Strict::new(list)),
            Arrays::Rejected => Err(Error::custom("invalid type: an array, expected an object")),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        self.inner.visit_map(Strict::new(map))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<V::Value, A::Error> {
        self.inner.visit_enum(Strict::new(data))
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Seed<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        self.0.deserialize(Strict::new(deserializer))
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Strict<A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        self.inner.next_element_seed(Seed(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Strict<A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        self.inner.next_key_seed(Seed(seed))
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.inner.next_value_seed(Seed(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, A: EnumAccess<'de>> EnumAccess<'de> for Strict<A> {
    type Error = A::Error;
    type Variant = Strict<A::Variant>;

    fn variant_seed<S: DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<(S::Value, Self::Variant), A::Error> {
        let (value, variant) = self.inner.variant_seed(Seed(seed))?;

        Ok((value, Strict::new(variant)))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Strict<A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.inner.unit_variant()
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        self.inner.newtype_variant_seed(Seed(seed))
    }

    fn tuple_variant<V: Visitor<'de>>(
        self,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        self.inner.tuple_variant(length, Guard::new(visitor))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        self.inner
            .struct_variant(fields, Guard::objects_only(visitor))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::value::RawValue;
    use serde_json::{Value, json};

    use super::*;

    #[derive(Debug, Default, PartialEq, serde::Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Point {
        x: u32,
    }

    #[derive(Debug, PartialEq, serde::Deserialize)]
    enum Shape {
        Point(Point),
        Line { from: Point },
        Pair(u8, u8),
        Nothing,
    }

    #[derive(Debug, PartialEq, serde::Deserialize)]
    #[serde(tag = "kind")]
    enum Tagged {
        Empty,
        Filled {
            #[serde(deserialize_with = "nested")]
            points: Vec<Point>,
        },
    }

    #[derive(Debug, serde::Deserialize)]
    struct Everything {
        point: Option<Point>,
        points: Vec<Point>,
        by_name: BTreeMap<String, Point>,
        boxed: Box<Point>,
        pairs: Vec<(String, Option<Point>)>,
        shapes: Vec<Shape>,
        #[serde(default, deserialize_with = "tagged")]
        tagged: Option<Tagged>,
        #[serde(flatten, deserialize_with = "nested")]
        more: More,
        any: Value,
        raw: Box<RawValue>,
    }

    #[derive(Debug, serde::Deserialize)]
    struct More {
        deep: Point,
    }

    fn good() -> Value {
        json!({
            "point": { "x": 1 }, "points": [{ "x": 1 }], "by_name": { "a": { "x": 1 } }, "boxed": { "x": 1 },
            "pairs": [["a", { "x": 1 }]],
            "shapes": [{ "Point": { "x": 1 } }, { "Line": { "from": { "x": 1 } } }, { "Pair": [1, 2] }, "Nothing"],
            "tagged": { "kind": "Filled", "points": [{ "x": 1 }] }, "deep": { "x": 1 },
            "any": [1, { "x": [] }], "raw": [1, 2],
        })
    }

    #[test]
    fn objects_are_read() {
        let text = good().to_string();
        let read: Everything = from_str(&text).unwrap();
        assert_eq!(read.point, Some(Point { x: 1 }));
        assert_eq!(read.shapes[2..], [Shape::Pair(1, 2), Shape::Nothing]);

        assert_eq!(
            read.tagged,
            Some(Tagged::Filled {
                points: vec![Point { x: 1 }]
            })
        );

        assert_eq!(
            (read.any, read.raw.get()),
            (json!([1, { "x": [] }]), "[1,2]")
        );
        assert_eq!(
            (
                read.points.len(),
                read.by_name.len(),
                read.boxed.x,
                read.pairs.len()
            ),
            (1, 1, 1, 1)
        );

        assert_eq!(read.more.deep, Point { x: 1 });
        assert_eq!(from_str::<Option<Tagged>>("null").unwrap(), None);
        assert_eq!(from_slice::<Point>(b" {} ").unwrap(), Point::default());

        assert!(
            from_str::<Point>("{} {}")
                .unwrap_err()
                .to_string()
                .starts_with("trailing characters")
        );
    }

    #[test]
    fn arrays_are_rejected_at_every_depth() {
        for path in [
            "/point",
            "/points/0",
            "/by_name/a",
            "/boxed",
            "/pairs/0/1",
            "/shapes/0/Point",
            "/shapes/1/Line",
            "/shapes/1/Line/from",
            "/tagged/points/0",
            "/deep",
        ] {
            let mut bad = good();
            *bad.pointer_mut(path).unwrap() = json!([1]);
            let why = from_str::<Everything>(&bad.to_string()).unwrap_err();
            assert!(
                why.is_data() && why.to_string().contains("expected an object"),
                "{path}: {why}"
            );
        }

        let mut bad = good();
        bad["tagged"] = json!(["Empty"]);
        let why = from_str::<Everything>(&bad.to_string())
            .unwrap_err()
            .to_string();
        assert!(why.contains("expected an object"), "{why}");

        for text in ["[]", "[5]"] {
            assert!(
                from_str::<Point>(text)
                    .unwrap_err()
                    .to_string()
                    .contains("expected an object"),
                "{text}"
            );
        }
    }
}
