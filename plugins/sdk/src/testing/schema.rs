//! As much of JSON Schema as a plugin's configuration needs, so that a trial refuses what the gateway would.
//!
//! Known: `type`, `enum`, `properties`, `required`, `additionalProperties`, `items`, `minimum`, `maximum`, `minItems`,
//! `minLength`. An unknown keyword is an error of the schema: it would be checked by the gateway and not here.

use serde_json::Value;

/// Checks a value.
///
/// # Errors
/// Where it breaks the schema, or what in the schema is not known.
pub fn check(schema: &str, value: &Value) -> Result<(), String> {
    let schema: Value = serde_json::from_str(schema).map_err(|error| format!("the schema is no JSON: {error}"))?;
    walk(&schema, value, "")
}

fn walk(schema: &Value, value: &Value, path: &str) -> Result<(), String> {
    let fail = |rule: String| Err(format!("{}: {rule}", if path.is_empty() { "/" } else { path }));
    for (keyword, rule) in schema.as_object().into_iter().flatten() {
        match keyword.as_str() {
            "$schema" | "title" | "description" | "default" | "examples" => {}
            "type" => {
                let kinds = rule.as_array().cloned().unwrap_or_else(|| vec![rule.clone()]);
                if !kinds.iter().any(|kind| is(kind.as_str().unwrap_or_default(), value)) {
                    return fail(format!("is not of type {rule}"));
                }
            }
            "enum" if rule.as_array().is_some_and(|values| !values.contains(value)) => {
                return fail(format!("is not one of {rule}"));
            }
            "enum" => {}
            "required" => {
                for key in rule.as_array().into_iter().flatten().filter_map(Value::as_str) {
                    if value.is_object() && value.get(key).is_none() {
                        return fail(format!("lacks `{key}`"));
                    }
                }
            }
            "properties" => {
                for (key, inner) in rule.as_object().into_iter().flatten() {
                    if let Some(value) = value.get(key) {
                        walk(inner, value, &format!("{path}/{key}"))?;
                    }
                }
            }
            "additionalProperties" => {
                for (key, inner) in value.as_object().into_iter().flatten() {
                    if schema["properties"].get(key).is_some() {
                        continue;
                    }
                    match rule {
                        Value::Bool(false) => return fail(format!("has no member `{key}`")),
                        Value::Bool(true) => {}
                        rule => walk(rule, inner, &format!("{path}/{key}"))?,
                    }
                }
            }
            "items" => {
                for (at, inner) in value.as_array().into_iter().flatten().enumerate() {
                    walk(rule, inner, &format!("{path}/{at}"))?;
                }
            }
            "minimum" if value.as_f64() < rule.as_f64() && value.is_number() => {
                return fail(format!("is less than {rule}"));
            }
            "maximum" if value.as_f64() > rule.as_f64() && value.is_number() => {
                return fail(format!("is more than {rule}"));
            }
            "minItems" if value.as_array().is_some_and(|list| (list.len() as u64) < rule.as_u64().unwrap_or(0)) => {
                return fail(format!("has fewer than {rule} items"));
            }
            "minLength" if value.as_str().is_some_and(|text| (text.len() as u64) < rule.as_u64().unwrap_or(0)) => {
                return fail("is too short".into());
            }
            "minimum" | "maximum" | "minItems" | "minLength" => {}
            other => return fail(format!("`{other}` in the schema is not known here")),
        }
    }
    Ok(())
}

fn is(kind: &str, value: &Value) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "number" => value.is_number(),
        "null" => value.is_null(),
        _ => false,
    }
}
