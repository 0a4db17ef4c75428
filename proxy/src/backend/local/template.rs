//! The model's own chat template, as Hugging Face renders it: Jinja with trimmed blocks, the special tokens as
//! variables, and two functions templates call.

use super::python;
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, ErrorKind, Value as Jinja, context};
use serde_json::{Map, Value};

/// A compiled chat template.
pub struct Template {
    environment: Environment<'static>,
    bos: String,
    eos: String,
}

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
        let source = source.unwrap_or(CHATML).to_owned();
        environment.add_template_owned("chat", source).map_err(|e| format!("chat template: {e}"))?;
        Ok(Template { environment, bos: bos.to_owned(), eos: eos.to_owned() })
    }

    /// The prompt for OpenAI chat `messages`. Errors are the caller's: parts that are not text, or what the
    /// template itself refuses.
    pub fn render(&self, messages: &Value, tools: Option<&Value>) -> Result<String, String> {
        let messages = messages.as_array().ok_or("messages must be an array")?;
        let messages = messages.iter().map(plain).collect::<Result<Vec<_>, _>>()?;
        let template = self.environment.get_template("chat").map_err(|e| e.to_string())?;
        let tools = tools.filter(|tools| tools.as_array().is_some_and(|list| !list.is_empty()));
        let context = context! {
            messages => messages.iter().map(jinja).collect::<Vec<_>>(),
            tools => tools.map(jinja),
            bos_token => self.bos.as_str(),
            eos_token => self.eos.as_str(),
            add_generation_prompt => true,
        };
        template.render(context).map_err(|e| format!("the model's chat template refused these messages: {e}"))
    }
}

/// By hand, because minijinja's own way is a feature that would bring nothing else.
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
        Value::Object(object) => Jinja::from_pairs(object.iter().map(|(key, value)| (key.as_str(), jinja(value)))),
    }
}

/// Templates know `content` as a string and tool arguments as an object; the wire also has parts and JSON in a string.
fn plain(message: &Value) -> Result<Value, String> {
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
    Ok(Value::Object(plain))
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
    use serde_json::json;
    use std::time::{Duration, UNIX_EPOCH};

    /// As found in SmolLM2's file.
    const SMOLLM: &str = "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}\
        {{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}\
        {% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}\
        {% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

    fn render(source: &str, messages: Value) -> Result<String, String> {
        Template::new(Some(source), "<s>", "</s>").unwrap().render(&messages, None)
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
        assert_eq!(Template::new(None, "", "").unwrap().render(&messages, None).unwrap(), expect);
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
        assert_eq!(template.render(&messages, Some(&json!([{"name": "f"}]))).unwrap(), "<s>\nParisf</s>");
        assert_eq!(template.render(&messages, Some(&json!([]))).unwrap(), "<s>\nParis</s>");
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
