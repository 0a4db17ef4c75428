//! The model's own chat template, as Hugging Face renders it: Jinja with trimmed blocks, the special tokens as
//! variables, and two functions templates call.

use super::call::{Form, LIST, OPENING};
use super::{python, tell};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Kwargs;
use minijinja::{Environment, ErrorKind, Value as Jinja, context};
use serde_json::{Map, Value, json};

/// A compiled chat template.
pub struct Template {
    environment: Environment<'static>,
    bos: String,
    eos: String,
    /// Whether it says tools, calls and results itself.
    knows_tools: bool,
    /// Whether it can be told to let the model think or not.
    pub knows_thinking: bool,
    /// How the models it was written for say calls.
    pub form: Form,
}

/// Stands behind the beginning of an answer until it has been rendered: for private use, so that no template looks for it.
const MARK: char = '\u{e000}';

/// What models without a template are prompted with: ChatML, the commonest form.
const CHATML: &str = "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n\
                      {% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

impl Template {
    /// Compiles `source`; `bos` and `eos` are the texts of those tokens.
    pub fn new(source: Option<&str>, bos: &str, eos: &str) -> Result<Template, String> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.expect("the usual delimiters do not clash"));
        environment.set_unknown_method_callback(python::method);
        // A template comes with a file from elsewhere; macros that call each other must not use up the stack.
        environment.set_recursion_limit(100);
        environment.add_function("raise_exception", |message: String| -> Result<Jinja, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_function("strftime_now", |format: String| strftime(&format, std::time::SystemTime::now()));
        // Jinja's own filter writes JSON for HTML; Hugging Face's is Python's `json.dumps`.
        environment.add_filter("tojson", to_json);
        let source = source.unwrap_or(CHATML).to_owned();
        let knows_tools = source.contains("tools");
        let knows_thinking = source.contains("enable_thinking");
        let form = match () {
            () if !knows_tools || source.contains(OPENING) => Form::Hermes,
            () if source.contains(LIST) => Form::Mistral,
            () if source.contains("\"parameters\": ") || source.contains("<|python_tag|>") => Form::Llama,
            () => Form::Hermes,
        };
        environment.add_template_owned("chat", source).map_err(|e| format!("chat template: {e}"))?;
        Ok(Template { environment, bos: bos.to_owned(), eos: eos.to_owned(), knows_tools, knows_thinking, form })
    }

    /// Whether a prompt can end within an answer: some templates demand that it was the user who spoke last.
    pub fn goes_on(&self) -> bool {
        let begun = json!([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]);
        self.render(&begun, None, true, None).is_ok_and(|prompt| prompt.ends_with("Hello"))
    }

    /// The prompt for OpenAI chat `messages`; with `goes_on` it ends within the last of them. Errors are the caller's: parts
    /// that are not text, or what the template itself refuses. `thinking` is said to templates that know it; without a word they
    /// do as they like.
    pub fn render(
        &self,
        messages: &Value,
        tools: Option<&Value>,
        goes_on: bool,
        thinking: Option<bool>,
    ) -> Result<String, String> {
        let messages = messages.as_array().ok_or("messages must be an array")?;
        let mut messages = messages.iter().map(plain).collect::<Result<Vec<_>, _>>()?;
        let template = self.environment.get_template("chat").map_err(|e| e.to_string())?;
        let mut tools = tools.and_then(Value::as_array).filter(|list| !list.is_empty());
        if !self.knows_tools {
            messages = tell::tell(messages, tools.take());
        } else if self.form == Form::Mistral {
            messages.iter_mut().for_each(shorten_ids);
        }
        if goes_on && let Some(Value::String(last)) = messages.last_mut().and_then(|last| last.get_mut("content")) {
            last.push(MARK);
        }
        let context = context! {
            messages => messages.iter().map(map).collect::<Vec<_>>(),
            tools => tools.map(|list| list.iter().map(jinja).collect::<Vec<_>>()),
            bos_token => self.bos.as_str(),
            eos_token => self.eos.as_str(),
            add_generation_prompt => !goes_on,
            // Templates ask whether it is defined.
            enable_thinking => thinking.map_or(Jinja::UNDEFINED, Jinja::from),
        };
        let rendered = template.render(context);
        let mut prompt = rendered.map_err(|e| format!("the model's chat template refused these messages: {e}"))?;
        if goes_on {
            // What follows would end the answer.
            let end = prompt.rfind(MARK).ok_or("the model's chat template leaves out the beginning of the answer")?;
            prompt.truncate(end);
        }
        Ok(prompt)
    }
}

/// JSON as Python's `json.dumps` writes it; `indent` is the argument templates give.
fn to_json(value: Jinja, options: Kwargs) -> Result<Jinja, minijinja::Error> {
    let wrong = |error: serde_json::Error| minijinja::Error::new(ErrorKind::BadSerialization, error.to_string());
    let value = serde_json::to_value(&value).map_err(wrong)?;
    let text = match options.get::<Option<usize>>("indent")? {
        None => tell::dump(&value),
        Some(indent) => {
            let (mut out, indent) = (Vec::new(), " ".repeat(indent.min(16)));
            let formatter = serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes());
            let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
            serde::Serialize::serialize(&value, &mut serializer).map_err(wrong)?;
            String::from_utf8_lossy(&out).into_owned()
        }
    };
    Ok(Jinja::from_safe_string(text))
}

/// Mistral's templates refuse ids of calls that have not nine letters, and calls come from any model.
fn shorten_ids(message: &mut Map<String, Value>) {
    let short = |id: &mut Value| {
        let Some(text) = id.as_str() else { return };
        if text.len() != 9 || !text.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            let hash = text
                .bytes()
                .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
            *id = format!("{:09x}", hash & 0xf_ffff_ffff).into();
        }
    };
    message.get_mut("tool_call_id").into_iter().for_each(short);
    if let Some(Value::Array(calls)) = message.get_mut("tool_calls") {
        calls.iter_mut().filter_map(|call| call.get_mut("id")).for_each(short);
    }
}

/// By hand, because minijinja knows the way to serde only, not the one back.
fn jinja(value: &Value) -> Jinja {
    match value {
        Value::Null => Jinja::from(()),
        Value::Bool(value) => Jinja::from(*value),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(whole), _) => Jinja::from(whole),
            (_, Some(whole)) => Jinja::from(whole),
            _ => Jinja::from(number.as_f64().unwrap_or_default()),
        },
        Value::String(text) => Jinja::from(text.as_str()),
        Value::Array(list) => Jinja::from(list.iter().map(jinja).collect::<Vec<_>>()),
        Value::Object(object) => map(object),
    }
}

fn map(object: &Map<String, Value>) -> Jinja {
    Jinja::from_pairs(object.iter().map(|(key, value)| (key.as_str(), jinja(value))))
}

/// Templates know `content` as a string and tool arguments as an object; the wire also has parts and JSON in a string.
fn plain(message: &Value) -> Result<Map<String, Value>, String> {
    let message = message.as_object().ok_or("each message must be an object")?;
    if !message.get("role").is_some_and(Value::is_string) {
        return Err("each message needs a role".into());
    }
    let mut plain: Map<String, Value> = message.clone();
    let content = match message.get("content") {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => {
            let texts = parts.iter().map(text).collect::<Result<Vec<_>, _>>()?;
            texts.join("\n")
        }
        Some(_) => return Err("a message's content must be a string or an array of parts".into()),
    };
    plain.insert("content".into(), Value::String(content));
    if let Some(Value::Array(calls)) = plain.get_mut("tool_calls") {
        for arguments in calls.iter_mut().filter_map(|call| call.pointer_mut("/function/arguments")) {
            let parsed = arguments.as_str().and_then(|text| serde_json::from_str::<Map<String, Value>>(text).ok());
            if let Some(parsed) = parsed {
                *arguments = Value::Object(parsed);
            }
        }
    }
    Ok(plain)
}

fn text(part: &Value) -> Result<&str, String> {
    match (part.get("type").and_then(Value::as_str), part.get("text").and_then(Value::as_str)) {
        (Some("text" | "input_text") | None, Some(text)) => Ok(text),
        (kind, _) => Err(format!("this model reads text only, not a part of type {:?}", kind.unwrap_or("unknown"))),
    }
}

/// The few conversions chat templates use, in UTC; a date library would be a tenant for one line of a prompt.
fn strftime(format: &str, now: std::time::SystemTime) -> String {
    let seconds = now.duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let (days, of_day) = ((seconds / 86_400) as i64, seconds % 86_400);
    // Civil date from days, after Howard Hinnant: years start in March, so that the leap day comes last.
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let of_era = z.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    const DAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];
    let month_name = MONTHS[month as usize - 1];
    let day_name = DAYS[days.rem_euclid(7) as usize];
    let mut out = String::new();
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            out.push(letter);
            continue;
        }
        match letters.next() {
            Some('Y') => out.push_str(&year.to_string()),
            Some('m') => out.push_str(&format!("{month:02}")),
            Some('d') => out.push_str(&format!("{day:02}")),
            Some('B') => out.push_str(month_name),
            Some('b') => out.push_str(&month_name[..3]),
            Some('A') => out.push_str(day_name),
            Some('a') => out.push_str(&day_name[..3]),
            Some('H') => out.push_str(&format!("{:02}", of_day / 3600)),
            Some('M') => out.push_str(&format!("{:02}", of_day / 60 % 60)),
            Some('S') => out.push_str(&format!("{:02}", of_day % 60)),
            Some(other) => out.extend([other]),
            None => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    /// As found in SmolLM2's file.
    const SMOLLM: &str = "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}\
        {{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}\
        {% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}\
        {% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

    fn render(source: &str, messages: Value) -> Result<String, String> {
        Template::new(Some(source), "<s>", "</s>").unwrap().render(&messages, None, false, None)
    }

    #[test]
    fn a_conversation_renders() {
        let messages = json!([
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Hi"}, {"type": "text", "text": "there"}]},
        ]);
        let expect = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi\nthere<|im_end|>\n\
                      <|im_start|>assistant\n";
        assert_eq!(render(SMOLLM, messages.clone()).unwrap(), expect);
        assert_eq!(Template::new(None, "", "").unwrap().render(&messages, None, false, None).unwrap(), expect);
    }

    #[test]
    fn a_prompt_ends_within_the_answer_where_the_template_lets_it() {
        let begun = json!([{"role": "user", "content": "Sea?"}, {"role": "assistant", "content": "Sea? The "}]);
        let trims = "{% for m in messages %}[{{ m.role }}]{{ m.content | trim }}[end]{% endfor %}\
                     {% if add_generation_prompt %}[assistant]{% endif %}";
        let user_last = "{% if messages[-1].role != 'user' %}{{ raise_exception('the user speaks last') }}{% endif %}";
        let silent = "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}";
        for (source, expect) in [
            (None, "<|im_start|>user\nSea?<|im_end|>\n<|im_start|>assistant\nSea? The "),
            (Some(trims), "[user]Sea?[end][assistant]Sea? The "),
            (Some(user_last), "refused these messages"),
            (Some(silent), "leaves out the beginning"),
        ] {
            let template = Template::new(source, "", "").unwrap();
            let rendered = template.render(&begun, None, true, None);
            assert_eq!(template.goes_on(), rendered.is_ok(), "{source:?}");
            match rendered {
                Ok(prompt) => assert_eq!(prompt, expect),
                Err(error) => assert!(error.contains(expect), "{error}"),
            }
        }
    }

    #[test]
    fn a_default_system_prompt_comes_from_the_template() {
        let prompt = render(SMOLLM, json!([{"role": "user", "content": "Hi"}])).unwrap();
        assert!(prompt.starts_with("<|im_start|>system\nYou are a helpful AI assistant named SmolLM"));
    }

    #[test]
    fn tokens_tools_and_arguments_reach_the_template() {
        let source = "{{ bos_token }}\n{% for m in messages %}\n  {% for c in m.tool_calls %}\n{{ c.function.arguments.city }}\
                      {% endfor %}\n{% endfor %}\n{% if tools %}{{ tools[0].name }}{% endif %}{{ eos_token }}";
        let call = json!({"function": {"name": "f", "arguments": "{\"city\":\"Paris\"}"}});
        let messages = json!([{"role": "assistant", "content": null, "tool_calls": [call]}]);
        let template = Template::new(Some(source), "<s>", "</s>").unwrap();
        assert_eq!(template.render(&messages, Some(&json!([{"name": "f"}])), false, None).unwrap(), "<s>\nParisf</s>");
        assert_eq!(template.render(&messages, Some(&json!([])), false, None).unwrap(), "<s>\nParis</s>");
    }

    /// The end of Qwen3's template.
    #[test]
    fn whether_to_think_is_said_where_somebody_did() {
        let source = "{%- if add_generation_prompt %}\n    {{- '<|im_start|>assistant\\n' }}\n    \
            {%- if enable_thinking is defined and enable_thinking is false %}\n        \
            {{- '<think>\\n\\n</think>\\n\\n' }}\n    {%- endif %}\n{%- endif %}";
        let template = Template::new(Some(source), "", "").unwrap();
        assert!(template.knows_thinking && !Template::new(Some(SMOLLM), "", "").unwrap().knows_thinking);
        let (open, shut) = ("<|im_start|>assistant\n", "<|im_start|>assistant\n<think>\n\n</think>\n\n");
        for (thinking, expect) in [(None, open), (Some(true), open), (Some(false), shut)] {
            assert_eq!(template.render(&json!([]), None, false, thinking).unwrap(), expect, "{thinking:?}");
        }
    }

    #[test]
    fn json_is_pythons() {
        let source = "{{ tools | tojson }}|{{ tools[0] | tojson(indent=2) }}|{{ \"<&'é\" | tojson }}";
        let template = Template::new(Some(source), "", "").unwrap();
        let rendered =
            template.render(&json!([]), Some(&json!([{"type": "f", "a": [1, 2.5, null]}])), false, None).unwrap();
        let expect = "[{\"type\": \"f\", \"a\": [1, 2.5, null]}]|{\n  \"type\": \"f\",\n  \"a\": [\n    1,\n    2.5,\n    null\n  ]\n}|\"<&'é\"";
        assert_eq!(rendered, expect);
    }

    #[test]
    fn the_form_of_calls_is_the_templates() {
        for (source, form) in [
            ("{{ messages }}", Form::Hermes),
            ("{{ tools }} <tool_call>", Form::Hermes),
            ("{{ tools }} [TOOL_CALLS]", Form::Mistral),
            ("{{ tools }} {\"name\": x, \"parameters\": y}", Form::Llama),
            ("{{ tools }}", Form::Hermes),
        ] {
            assert_eq!(Template::new(Some(source), "", "").unwrap().form, form, "{source}");
        }
    }

    #[test]
    fn ids_have_nine_letters_where_the_template_wants_them() {
        let source = "{% if tools %}[TOOL_CALLS]{% endif %}{% for m in messages %}{{ m.tool_calls[0].id if m.tool_calls else m.tool_call_id }} {% endfor %}";
        let messages =
            |id: &str| json!([{"role": "assistant", "tool_calls": [{"id": id}]}, {"role": "tool", "tool_call_id": id}]);
        assert_eq!(render(source, messages("abcdefgh9")).unwrap(), "abcdefgh9 abcdefgh9 ");
        let ids = render(source, messages("call_00112233")).unwrap();
        let ids: Vec<&str> = ids.split_whitespace().collect();
        assert!(ids[0] == ids[1] && ids[0].len() == 9, "{ids:?}");
    }

    #[test]
    fn refusals_are_told() {
        for (messages, expect) in [
            (json!("hello"), "must be an array"),
            (json!(["hello"]), "must be an object"),
            (json!([{"content": "x"}]), "needs a role"),
            (json!([{"role": "user", "content": 7}]), "string or an array"),
            (json!([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]), "image_url"),
        ] {
            assert!(render(SMOLLM, messages).unwrap_err().contains(expect));
        }
        let error = render("{{ raise_exception('roles must alternate') }}", json!([])).unwrap_err();
        assert!(error.contains("roles must alternate"), "{error}");
        assert!(Template::new(Some("{% if %}"), "", "").is_err());
    }

    #[test]
    fn dates_are_right() {
        let leap = UNIX_EPOCH + Duration::from_secs(1_709_210_096);
        assert_eq!(
            strftime("%A %d %B %Y, %H:%M:%S %b %a %m%%", leap),
            "Thursday 29 February 2024, 12:34:56 Feb Thu 02%"
        );
        assert_eq!(strftime("%Y-%m-%d", UNIX_EPOCH), "1970-01-01");
    }
}
