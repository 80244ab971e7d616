//! Structs that come as JSON objects only.
//!
//! What serde derives for a struct takes an array too, by the order of the struct's fields. That is no
//! contract: a field that is added in the middle would change what the array says. So a struct within a
//! body is read by these; the body itself is looked at where it comes in.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};

/// A `T` that came as an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_map(Fields(PhantomData)).map(Self)
    }
}

struct Fields<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }
}

/// For `#[serde(deserialize_with)]`: one object.
///
/// # Errors
/// Those of `T`, and that it is no object.
pub fn object<'de, T: Deserialize<'de>, D: Deserializer<'de>>(d: D) -> Result<T, D::Error> {
    Object::deserialize(d).map(|Object(it)| it)
}

/// For `#[serde(deserialize_with)]`: a list of objects.
///
/// # Errors
/// Those of `T`, and that one is no object.
pub fn objects<'de, T: Deserialize<'de>, D: Deserializer<'de>>(d: D) -> Result<Vec<T>, D::Error> {
    let all = Vec::<Object<T>>::deserialize(d)?;
    Ok(all.into_iter().map(|Object(it)| it).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Point {
        x: i64,
        y: Option<i64>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Line {
        #[serde(deserialize_with = "object")]
        from: Point,
        #[serde(deserialize_with = "objects")]
        to: Vec<Point>,
    }

    fn read(text: &str) -> Result<Line, String> {
        serde_json::from_str(text).map_err(|e| e.to_string())
    }

    #[test]
    fn objects_are_taken_and_lists_of_their_fields_are_not() {
        let line = read(r#"{"from":{"x":1},"to":[{"y":3,"x":2}]}"#);
        let from = Point { x: 1, y: None };
        let to = vec![Point { x: 2, y: Some(3) }];
        assert_eq!(line, Ok(Line { from, to }));
        for bad in [
            r#"{"from":[1,2],"to":[]}"#,
            r#"{"from":{"x":1},"to":[{"x":2},[3,4]]}"#,
            r#"{"from":null,"to":[]}"#,
        ] {
            let why = read(bad).unwrap_err();
            assert!(why.contains("expected an object"), "{why}");
        }
        let why = read(r#"{"from":{"x":1,"z":2},"to":[]}"#).unwrap_err();
        assert!(why.contains("unknown field `z`"), "{why}");
    }
}
