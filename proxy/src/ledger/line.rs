//! A record as a line of JSON, written by hand.
//!
//! It is written for every request, and serde looks at every byte of every key again for something to escape. Reading is
//! serde's: it happens after a crash.

use crate::canon::Record;
use crate::wire::json::{write_f64, write_int, write_str};

/// Appends the record and a newline.
pub(super) fn write(line: &mut Vec<u8>, record: &Record) {
    let mut fields = Fields { line, first: true };
    fields.text("id", record.id.as_hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer()));
    fields.text("request_id", &record.request_id);
    fields.number("started_at", record.started_at);
    fields.number("ended_at", record.ended_at);
    fields.text("organization", &record.organization);
    fields.text("project", &record.project);
    fields.text("key", &record.key);
    fields.text_or_null("user", record.user.as_deref());
    fields.text("endpoint", &record.endpoint);
    fields.text("dialect", &record.dialect);
    fields.text("model_requested", &record.model_requested);
    fields.text("model", &record.model);
    fields.text("backend", &record.backend);
    fields.text("target", &record.target);
    fields.number("attempts", record.attempts);
    fields.key("stream");
    fields.line.extend_from_slice(if record.stream { b"true" } else { b"false" });
    fields.text("outcome", record.outcome.as_str());
    fields.number("status", record.status);
    fields.text_or_null("stop_reason", record.stop_reason.as_deref());
    fields.number_or_null("input_tokens", record.input_tokens);
    fields.number_or_null("output_tokens", record.output_tokens);
    fields.number_or_null("cache_read_tokens", record.cache_read_tokens);
    fields.number_or_null("cache_write_tokens", record.cache_write_tokens);
    fields.number_or_null("reasoning_tokens", record.reasoning_tokens);
    fields.text("usage_source", record.usage_source.as_str());
    fields.decimal_or_null("first_token_ms", record.first_token_ms);
    fields.decimal_or_null("duration_ms", Some(record.duration_ms));
    fields.decimal_or_null("overhead_ms", Some(record.overhead_ms));
    fields.decimal_or_null("cost", record.cost);
    fields.text_or_null("currency", record.currency.as_deref());
    fields.key("tags");
    fields.line.push(b'[');
    for (at, tag) in record.tags.iter().enumerate() {
        if at > 0 {
            fields.line.push(b',');
        }
        write_str(fields.line, tag);
    }
    line.extend_from_slice(b"]}\n");
}

struct Fields<'a> {
    line: &'a mut Vec<u8>,
    first: bool,
}

impl Fields<'_> {
    fn key(&mut self, key: &'static str) {
        self.line.push(if std::mem::take(&mut self.first) { b'{' } else { b',' });
        self.line.push(b'"');
        self.line.extend_from_slice(key.as_bytes());
        self.line.extend_from_slice(b"\":");
    }

    fn text(&mut self, key: &'static str, text: &str) {
        self.key(key);
        write_str(self.line, text);
    }

    fn text_or_null(&mut self, key: &'static str, text: Option<&str>) {
        match text {
            Some(text) => self.text(key, text),
            None => self.null(key),
        }
    }

    fn number(&mut self, key: &'static str, number: impl itoa::Integer) {
        self.key(key);
        write_int(self.line, number);
    }

    fn number_or_null(&mut self, key: &'static str, number: Option<u64>) {
        match number {
            Some(number) => self.number(key, number),
            None => self.null(key),
        }
    }

    fn decimal_or_null(&mut self, key: &'static str, number: Option<f64>) {
        match number {
            Some(number) => {
                self.key(key);
                write_f64(self.line, number);
            }
            None => self.null(key),
        }
    }

    fn null(&mut self, key: &'static str) {
        self.key(key);
        self.line.extend_from_slice(b"null");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canon::{Outcome, UsageSource};

    #[test]
    fn a_line_reads_back_as_the_record_and_lacks_no_field() {
        let full = Record {
            id: uuid::Uuid::now_v7(),
            request_id: "a\"b\\c\u{1}é".into(),
            started_at: 1_795_413_998_131,
            user: Some("u".into()),
            attempts: 2,
            stream: true,
            outcome: Outcome::ClientGone,
            status: 499,
            stop_reason: Some("end_turn".into()),
            input_tokens: Some(u64::MAX),
            usage_source: UsageSource::Estimated,
            first_token_ms: Some(0.1),
            duration_ms: 12345.678,
            cost: Some(6.9e-6),
            currency: Some("USD".into()),
            tags: vec!["x".into(), "y".into()],
            ..Record::default()
        };
        for record in [full, Record::default()] {
            let mut line = Vec::new();
            write(&mut line, &record);
            assert_eq!(serde_json::from_slice::<Record>(&line).unwrap(), record);
            let by_hand: serde_json::Value = serde_json::from_slice(&line).unwrap();
            let by_serde = serde_json::to_value(&record).unwrap();
            assert!(by_hand.as_object().unwrap().keys().eq(by_serde.as_object().unwrap().keys()));
        }
    }
}
