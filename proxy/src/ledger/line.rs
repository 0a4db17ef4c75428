//! A record as a line of JSON, written by hand.
//!
//! It is written for every request, and serde looks at every byte of every key again for something to escape. What a field
//! has by default is left out, which halves the line. Reading is serde's: it happens after a crash.

use crate::canon::Record;
use crate::wire::json::{write_f64, write_int, write_str};

/// Appends the record and a newline.
pub(super) fn write(line: &mut Vec<u8>, record: &Record) {
    let mut fields = Fields(line);
    fields.0.extend_from_slice(b"{\"id\":\"");
    fields.0.extend_from_slice(record.id.as_hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer()).as_bytes());
    fields.0.push(b'"');
    fields.text("request_id", &record.request_id);
    fields.number("started_at", record.started_at);
    fields.number("ended_at", record.ended_at);
    fields.text("organization", &record.organization);
    fields.text("project", &record.project);
    fields.text("key", &record.key);
    fields.text_if("user", record.user.as_deref());
    fields.text("endpoint", &record.endpoint);
    fields.text("dialect", &record.dialect);
    fields.text("model_requested", &record.model_requested);
    fields.text("model", &record.model);
    fields.text("backend", &record.backend);
    fields.text("target", &record.target);
    fields.number("attempts", record.attempts);
    if record.stream {
        fields.key("stream");
        fields.0.extend_from_slice(b"true");
    }
    fields.text("outcome", record.outcome.as_str());
    fields.number("status", record.status);
    fields.text_if("stop_reason", record.stop_reason.as_deref());
    fields.number_if("input_tokens", record.input_tokens);
    fields.number_if("output_tokens", record.output_tokens);
    fields.number_if("cache_read_tokens", record.cache_read_tokens);
    fields.number_if("cache_write_tokens", record.cache_write_tokens);
    fields.number_if("reasoning_tokens", record.reasoning_tokens);
    fields.text("usage_source", record.usage_source.as_str());
    fields.decimal_if("first_token_ms", record.first_token_ms);
    fields.decimal_if("duration_ms", Some(record.duration_ms));
    fields.decimal_if("overhead_ms", Some(record.overhead_ms));
    fields.decimal_if("cost", record.cost);
    fields.text_if("currency", record.currency.as_deref());
    if !record.tags.is_empty() {
        fields.key("tags");
        for (at, tag) in record.tags.iter().enumerate() {
            fields.0.push(if at == 0 { b'[' } else { b',' });
            write_str(fields.0, tag);
        }
        fields.0.push(b']');
    }
    fields.decimal_if("queue_ms", record.queue_ms);
    fields.number_if("abandoned_tokens", Some(record.abandoned_tokens).filter(|tokens| *tokens > 0));
    line.extend_from_slice(b"}\n");
}

struct Fields<'a>(&'a mut Vec<u8>);

impl Fields<'_> {
    fn key(&mut self, key: &'static str) {
        self.0.extend_from_slice(b",\"");
        self.0.extend_from_slice(key.as_bytes());
        self.0.extend_from_slice(b"\":");
    }

    /// A text; an empty one is the default.
    fn text(&mut self, key: &'static str, text: &str) {
        self.text_if(key, Some(text).filter(|text| !text.is_empty()));
    }

    fn text_if(&mut self, key: &'static str, text: Option<&str>) {
        if let Some(text) = text {
            self.key(key);
            write_str(self.0, text);
        }
    }

    fn number(&mut self, key: &'static str, number: impl itoa::Integer) {
        self.key(key);
        write_int(self.0, number);
    }

    fn number_if(&mut self, key: &'static str, number: Option<u64>) {
        if let Some(number) = number {
            self.number(key, number);
        }
    }

    fn decimal_if(&mut self, key: &'static str, number: Option<f64>) {
        if let Some(number) = number {
            self.key(key);
            write_f64(self.0, number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canon::{Outcome, UsageSource};

    #[test]
    fn a_line_reads_back_as_the_record() {
        let full = Record {
            id: uuid::Uuid::now_v7(),
            request_id: "a\"b\\c\u{1}é".into(),
            started_at: 1_795_413_998_131,
            ended_at: 1_795_413_998_139,
            organization: "o".into(),
            project: "p".into(),
            key: "k".into(),
            user: Some("u".into()),
            endpoint: "messages".into(),
            dialect: "anthropic".into(),
            model_requested: "a".into(),
            model: "b".into(),
            backend: "c".into(),
            target: "c/0".into(),
            attempts: 2,
            stream: true,
            outcome: Outcome::ClientGone,
            status: 499,
            stop_reason: Some("end_turn".into()),
            input_tokens: Some(u64::MAX),
            output_tokens: Some(0),
            cache_read_tokens: Some(1),
            cache_write_tokens: Some(2),
            reasoning_tokens: Some(3),
            usage_source: UsageSource::Estimated,
            first_token_ms: Some(0.1),
            duration_ms: 12345.678,
            overhead_ms: 0.2,
            cost: Some(6.9e-6),
            currency: Some("USD".into()),
            tags: vec!["x".into(), "y".into()],
            queue_ms: Some(250.5),
            abandoned_tokens: 8,
        };
        for record in [full, Record::default()] {
            let mut line = Vec::new();
            write(&mut line, &record);
            assert_eq!(serde_json::from_slice::<Record>(&line).unwrap(), record);
            let by_hand: serde_json::Value = serde_json::from_slice(&line).unwrap();
            let by_serde = serde_json::to_value(&record).unwrap();
            let (by_hand, mut by_serde) = (by_hand.as_object().unwrap(), by_serde.as_object().unwrap().keys());
            assert!(by_hand.keys().all(|key| by_serde.any(|known| known == key)), "in the record's order");
        }
    }
}
