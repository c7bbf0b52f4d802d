//! The server holds to its own description: every request body of `GET /v1/openapi.json`, bent in one place at a time.

use hf_mem_probe::api::problem::Reason;
use serde_json::{Value, json};

use super::double::{raw, request, roomy, start};

/// A request body that the description allows, and the route that takes it.
struct Example {
    path: String,
    body: Value,
}

/// Bodies that together have every property and every alternative of every request.
fn examples(document: &Value) -> Vec<Example> {
    let mut examples = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        let schema = &operations["post"]["requestBody"]["content"]["application/json"]["schema"];
        if schema.is_null() {
            continue;
        }
        let path = path.replace("{id}", "l-1");
        examples.extend(values(document, schema).into_iter().map(|body| Example { path: path.clone(), body }));
    }
    examples
}

/// Values of `schema`: with the first alternative everywhere, and then with each other one.
fn values(document: &Value, schema: &Value) -> Vec<Value> {
    if let Some(reference) = schema["$ref"].as_str() {
        return values(document, document.pointer(&reference[1..]).unwrap());
    }
    if let Some(alternatives) = schema["oneOf"].as_array() {
        let real = alternatives.iter().filter(|schema| schema["type"] != "null");
        return real.flat_map(|schema| values(document, schema)).collect();
    }
    if let Some(words) = schema["enum"].as_array() {
        return words.clone();
    }

    let kind = schema["type"].as_str().or_else(|| schema["type"][0].as_str());
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
    let bend = |(name, value): (String, Value)| {
        let mut other = whole.clone();
        other[name] = value;
        other
    };
    let bent: Vec<Value> = others.into_iter().map(bend).collect();

    [vec![whole], bent].concat()
}

/// Where `value` has an object, as JSON pointers.
fn objects_in(value: &Value, place: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            found.push(place.to_owned());
            map.iter().for_each(|(name, value)| objects_in(value, &format!("{place}/{name}"), found));
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, item)| objects_in(item, &format!("{place}/{index}"), found));
        }
        _ => {}
    }
}

#[tokio::test]
async fn arrays_for_objects_are_refused() {
    let daemon = start(roomy());
    let socket = daemon.socket();
    let document = raw(&socket, &request("GET", "/v1/openapi.json", "", "")).await.body;
    let document: Value = serde_json::from_str(&document).unwrap();
    let mut bent = 0;
    for Example { path, body } in examples(&document) {
        let allowed = raw(&socket, &request("POST", &path, "", &body.to_string())).await;
        assert!(!allowed.body.contains("not a question"), "{path} {body}: {}", allowed.body);
        let mut places = Vec::new();
        objects_in(&body, "", &mut places);
        for place in places {
            let mut wrong = body.clone();
            let object = wrong.pointer_mut(&place).unwrap();
            let items = object.as_object().unwrap().values().cloned().collect();
            *object = Value::Array(items);
            let problem = raw(&socket, &request("POST", &path, "", &wrong.to_string())).await.problem();
            assert_eq!(problem.reason, Reason::Usage, "{path} {wrong}: {problem:?}");
            // serde_json takes an enum of objects for no JSON at all where it is an array.
            let said = ["expected an object", "expected value"].iter().any(|words| problem.detail.contains(words));
            assert!(said, "{path}, {place:?} of {wrong}: {problem:?}");
            bent += 1;
        }
    }
    assert!(bent > 20, "{bent}");

    // In the order of the fields, as serde's derive would take them.
    for (path, body) in [
        ("/v1/nvml/release", "[]"),
        ("/v1/nvml/release", "[5]"),
        ("/v1/leases/l-1/renew", "[]"),
        ("/v1/fits", r#"{"model": ["a/b"]}"#),
        ("/v1/fits", r#"{"questions": [{"model": ["a/b"]}]}"#),
        ("/v1/fits", r#"[[{"model": {"repo": "a/b"}}]]"#),
        ("/v1/fits", r#"{"model": {"repo": "a/b", "metadata": []}}"#),
        ("/v1/estimates", r#"{"model": {"repo": "a/b"}, "workload": [8192, 1]}"#),
        ("/v1/estimates", r#"{"model": {"repo": "a/b"}, "constraints": []}"#),
        ("/v1/leases", r#"[{"model": {"repo": "a/b"}}]"#),
        ("/v1/leases", r#"{"question": {"model": {"repo": "a/b"}, "engine": ["vllm"]}}"#),
    ] {
        let problem = raw(&socket, &request("POST", path, "", body)).await.problem();
        assert_eq!(problem.reason, Reason::Usage, "{path} {body}: {problem:?}");
        assert!(problem.detail.contains("expected an object"), "{path} {body}: {problem:?}");
    }
    daemon.stop().await;
}
