//! The server enforces its own OpenAPI document: the tests change every request body of
//! `GET /v1/openapi.json` in one place at a time.

use std::collections::BTreeSet;

use hf_mem_core::report::problem::Reason;
use serde_json::{Value, json};

use super::double::{default_limits, raw, request, start};

/// A request body that the document allows, and its route.
struct Example {
    path: String,
    body: Value,
}

/// Returns bodies that together have every property and every alternative of every request.
fn examples(document: &Value) -> Vec<Example> {
    let mut examples = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        let schema = &operations["post"]["requestBody"]["content"]["application/json"]["schema"];
        if schema.is_null() {
            continue;
        }

        let path = path.replace("{id}", "l-1");
        examples.extend(values(document, schema).into_iter().map(|body| Example {
            path: path.clone(),
            body,
        }));
    }

    examples
}

/// Returns values of `schema`: first with the first alternative everywhere, then with each other
/// one.
fn values(document: &Value, schema: &Value) -> Vec<Value> {
    if let Some(reference) = schema["$ref"].as_str() {
        return values(document, document.pointer(&reference[1..]).unwrap());
    }

    if let Some(alternatives) = schema["oneOf"].as_array() {
        let real = alternatives
            .iter()
            .filter(|schema| schema["type"] != "null");
        return real.flat_map(|schema| values(document, schema)).collect();
    }

    if let Some(words) = schema["enum"].as_array() {
        return words.clone();
    }

    if !schema["example"].is_null() {
        return vec![schema["example"].clone()];
    }

    let kind = schema["type"]
        .as_str()
        .or_else(|| schema["type"][0].as_str());

    match kind.unwrap_or_else(|| panic!("no type: {schema}")) {
        "object" => objects(document, schema),
        "array" => vec![json!([values(document, &schema["items"])[0]])],
        "string" => vec![json!("a/b")],
        "integer" => vec![json!(schema["minimum"].as_u64().unwrap_or_default().max(1))],
        "boolean" => vec![json!(false)],
        other => panic!("no example of a {other}"),
    }
}

fn objects(document: &Value, schema: &Value) -> Vec<Value> {
    let mut whole = json!({});
    let mut others = Vec::new();

    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let mut values = values(document, property).into_iter();
        whole[name] = values.next().unwrap();
        others.extend(values.map(|value| (name.clone(), value)));
    }

    let mut objects = vec![whole];
    for (name, value) in others {
        let mut other = objects[0].clone();
        other[name] = value;
        objects.push(other);
    }

    objects
}

/// Collects the JSON pointers of all objects in `value`.
fn objects_in(value: &Value, place: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            found.push(place.to_owned());
            map.iter()
                .for_each(|(name, value)| objects_in(value, &format!("{place}/{name}"), found));
        }
        Value::Array(items) => {
            items
                .iter()
                .enumerate()
                .for_each(|(index, item)| objects_in(item, &format!("{place}/{index}"), found));
        }
        _ => {}
    }
}

/// A value just outside a bound, and its place in a body.
struct Outside {
    place: String,
    keyword: &'static str,
    value: Value,
}

/// Returns a value outside each bound that `schema` and its parts state.
fn outside(document: &Value, schema: &Value, place: &str) -> Vec<Outside> {
    if let Some(reference) = schema["$ref"].as_str() {
        return outside(document, document.pointer(&reference[1..]).unwrap(), place);
    }

    let mut found = Vec::new();
    for alternative in schema["oneOf"].as_array().into_iter().flatten() {
        found.extend(outside(document, alternative, place));
    }

    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        found.extend(outside(document, property, &format!("{place}/{name}")));
    }

    if schema["items"].is_object() {
        found.extend(outside(document, &schema["items"], &format!("{place}/0")));
    }

    let questions = place.ends_with("questions");
    let item = if questions {
        json!({ "model": { "repo": "a/b" } })
    } else {
        json!("x")
    };

    let mut add_value = |keyword: &'static str, wrong: &dyn Fn(usize) -> Option<Value>| {
        // Bounds are whole numbers, some of them written as 1.0.
        let bound = schema[keyword]
            .as_f64()
            .map(|bound| format!("{bound:.0}").parse().unwrap());
        if let Some(value) = bound.and_then(wrong) {
            found.push(Outside {
                place: place.to_owned(),
                keyword,
                value,
            });
        }
    };

    add_value("minimum", &|min| {
        min.checked_sub(1).map(|value| json!(value))
    });
    add_value("maximum", &|max| Some(json!(max + 1)));
    add_value("minLength", &|min| {
        min.checked_sub(1).map(|length| json!("x".repeat(length)))
    });
    add_value("maxLength", &|max| Some(json!("x".repeat(max + 1))));

    add_value("minItems", &|min| {
        min.checked_sub(1)
            .map(|length| json!(vec![item.clone(); length]))
    });

    add_value("maxItems", &|max| Some(json!(vec![item.clone(); max + 1])));
    add_value("maxProperties", &|max| {
        Some((0..=max).map(|name| (name.to_string(), json!(1))).collect())
    });

    found
}

#[tokio::test]
async fn stated_bounds_are_enforced() {
    let daemon = start(default_limits());
    let socket = daemon.socket();
    let document = raw(&socket, &request("GET", "/v1/openapi.json", "", ""))
        .await
        .body;
    let document: Value = serde_json::from_str(&document).unwrap();
    let examples = examples(&document);
    let mut stated = BTreeSet::new();

    for (path, operations) in document["paths"].as_object().unwrap() {
        let schema = &operations["post"]["requestBody"]["content"]["application/json"]["schema"];
        let path = path.replace("{id}", "l-1");

        for Outside {
            place,
            keyword,
            value,
        } in outside(&document, schema, "")
        {
            let mut bodies = examples.iter().filter(|example| example.path == path);
            let example = bodies
                .find(|example| example.body.pointer(&place).is_some())
                .unwrap();
            let mut body = example.body.clone();
            *body.pointer_mut(&place).unwrap() = value;
            let problem = raw(&socket, &request("POST", &path, "", &body.to_string()))
                .await
                .problem();
            assert_eq!(
                problem.reason,
                Reason::Usage,
                "{path} {place} {keyword}: {problem:?}"
            );

            stated.insert(format!("{path} {place} {keyword}"));
        }
    }

    for bound in [
        "/v1/fits /model/repo minLength",
        "/v1/fits /questions maxItems",
        "/v1/fits /questions/0/model/file maxLength",
        "/v1/estimates /workload/context minimum",
        "/v1/estimates /engine/parameters maxProperties",
        "/v1/estimates /constraints/devices maxItems",
        "/v1/leases /holder/name maxLength",
        "/v1/leases /holder/pid minimum",
        "/v1/leases /idempotency_key maxLength",
        "/v1/leases /ttl_seconds minimum",
        "/v1/leases /wait_seconds maximum",
        "/v1/leases/l-1/renew /ttl_seconds minimum",
        "/v1/nvml/release /seconds maximum",
    ] {
        assert!(stated.contains(bound), "{bound} among {stated:?}");
    }

    daemon.stop().await;
}

#[tokio::test]
async fn arrays_for_objects_are_rejected() {
    let daemon = start(default_limits());
    let socket = daemon.socket();
    let document = raw(&socket, &request("GET", "/v1/openapi.json", "", ""))
        .await
        .body;
    let document: Value = serde_json::from_str(&document).unwrap();
    let mut changed = 0;

    for Example { path, body } in examples(&document) {
        let allowed = raw(&socket, &request("POST", &path, "", &body.to_string())).await;
        assert!(
            !allowed.body.contains("not a question"),
            "{path} {body}: {}",
            allowed.body
        );

        let mut places = Vec::new();
        objects_in(&body, "", &mut places);

        for place in places {
            let mut wrong = body.clone();
            let object = wrong.pointer_mut(&place).unwrap();
            let items = object.as_object().unwrap().values().cloned().collect();
            *object = Value::Array(items);
            let problem = raw(&socket, &request("POST", &path, "", &wrong.to_string()))
                .await
                .problem();
            assert_eq!(problem.reason, Reason::Usage, "{path} {wrong}: {problem:?}");

            // For an enum of objects, serde_json reports an array as invalid JSON.
            let is_named = ["expected an object", "expected value"]
                .iter()
                .any(|words| problem.detail.contains(words));
            assert!(is_named, "{path}, {place:?} of {wrong}: {problem:?}");
            changed += 1;
        }
    }

    assert!(changed > 20, "{changed}");

    // Arrays in the order of the fields, which serde's derive would accept.
    for (path, body) in [
        ("/v1/nvml/release", "[]"),
        ("/v1/nvml/release", "[5]"),
        ("/v1/leases/l-1/renew", "[]"),
        ("/v1/fits", r#"{"model": ["a/b"]}"#),
        ("/v1/fits", r#"{"questions": [{"model": ["a/b"]}]}"#),
        ("/v1/fits", r#"[[{"model": {"repo": "a/b"}}]]"#),
        ("/v1/fits", r#"{"model": {"repo": "a/b", "metadata": []}}"#),
        (
            "/v1/estimates",
            r#"{"model": {"repo": "a/b"}, "workload": [8192, 1]}"#,
        ),
        (
            "/v1/estimates",
            r#"{"model": {"repo": "a/b"}, "constraints": []}"#,
        ),
        ("/v1/leases", r#"[{"model": {"repo": "a/b"}}]"#),
        (
            "/v1/leases",
            r#"{"question": {"model": {"repo": "a/b"}, "engine": ["vllm"]}}"#,
        ),
    ] {
        let problem = raw(&socket, &request("POST", path, "", body))
            .await
            .problem();
        assert_eq!(problem.reason, Reason::Usage, "{path} {body}: {problem:?}");
        assert!(
            problem.detail.contains("expected an object"),
            "{path} {body}: {problem:?}"
        );
    }

    daemon.stop().await;
}
