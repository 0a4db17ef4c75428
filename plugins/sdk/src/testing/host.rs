//! The interface's imports, answered from this thread's [`World`](super::World). Same names, same types as the bindings'.

#![allow(missing_docs)]

pub use super::Call;
use super::World;

pub mod config {
    use super::World;

    pub fn get() -> String {
        World::with(|world| world.config.clone())
    }
}

pub mod request {
    use super::World;
    use crate::{Hop, Identity};

    pub fn id() -> String {
        World::with(|world| world.id.clone())
    }

    pub fn caller() -> Identity {
        World::with(|world| world.caller.clone())
    }

    pub fn endpoint() -> String {
        World::with(|world| world.endpoint.clone())
    }

    pub fn model() -> String {
        World::with(|world| world.model.clone())
    }

    pub fn streamed() -> bool {
        World::with(|world| world.streamed)
    }

    pub fn user() -> Option<String> {
        World::with(|world| world.user.clone())
    }

    pub fn header(name: &str) -> Option<String> {
        World::with(|world| world.headers.get(name).cloned())
    }

    pub fn route() -> Option<Hop> {
        World::with(|world| world.route.clone())
    }

    pub fn tag(tag: &str) {
        assert!(tag.len() <= 64, "a tag has at most 64 bytes: {tag}");
        World::with(|world| world.tags.push(tag.into()));
    }
}

pub mod log {
    use super::World;
    pub use crate::log::Level;

    pub fn write(level: Level, message: &str, fields: &[(String, String)]) {
        World::with(|world| world.logs.push((level, message.into(), fields.to_vec())));
    }
}

pub mod metrics {
    use super::World;

    pub fn add(name: &str, label: &str, by: f64) {
        World::with(|world| {
            let Some(values) = world.declared.get(name) else { panic!("metric `{name}` is not declared") };
            let known = values.as_ref().map_or(label.is_empty(), |values| values.iter().any(|value| value == label));
            assert!(known, "metric `{name}` has no label value `{label}`");
            *world.metrics.entry((name.into(), label.into())).or_default() += by;
        });
    }

    pub fn observe(name: &str, label: &str, value: f64) {
        add(name, label, value);
    }
}

pub mod system {
    use super::World;

    pub fn now() -> f64 {
        World::with(|world| world.now)
    }

    pub fn elapsed() -> f64 {
        now()
    }

    /// Nothing random in a test: zeros.
    pub fn random(length: u32) -> Vec<u8> {
        vec![0; length as usize]
    }
}

pub mod kv {
    use super::World;
    use crate::Error;

    /// The longest time a value is kept where nobody says.
    const LONGEST: u32 = 24 * 3600;

    pub fn get(key: &str) -> Result<Option<Vec<u8>>, Error> {
        access(key, |world, key| {
            let now = world.now;
            Ok(world.kv.get(&key).filter(|(_, end)| *end > now).map(|(value, _)| value.clone()))
        })
    }

    pub fn set(key: &str, value: &[u8], ttl: Option<u32>) -> Result<(), Error> {
        access(key, |world, key| {
            let end = world.now + f64::from(ttl.unwrap_or(LONGEST)) * 1000.0;
            world.kv.insert(key, (value.to_vec(), end));
            Ok(())
        })
    }

    pub fn delete(key: &str) -> Result<(), Error> {
        access(key, |world, key| {
            world.kv.remove(&key);
            Ok(())
        })
    }

    pub fn increment(key: &str, by: i64, ttl: Option<u32>) -> Result<i64, Error> {
        let old = get(key)?;
        let number = match &old {
            Some(value) => std::str::from_utf8(value).ok().and_then(|text| text.parse::<i64>().ok()),
            None => Some(0),
        };
        let sum = number.ok_or_else(|| Error::Invalid("the value is no number".into()))? + by;
        access(key, |world, key| {
            let fresh = world.now + f64::from(ttl.unwrap_or(LONGEST)) * 1000.0;
            let end = if old.is_some() { world.kv.get(&key).map_or(fresh, |(_, end)| *end) } else { fresh };
            world.kv.insert(key, (sum.to_string().into_bytes(), end));
            Ok(sum)
        })
    }

    fn access<T>(key: &str, act: impl FnOnce(&mut World, (String, String)) -> Result<T, Error>) -> Result<T, Error> {
        World::with(|world| {
            if let Some(error) = &world.kv_error {
                return Err(error.clone());
            }
            if key.len() > 512 {
                return Err(Error::TooLarge);
            }
            let key = (world.caller.organization.clone(), key.to_owned());
            act(world, key)
        })
    }
}

pub mod http {
    use super::World;
    use crate::Error;
    use crate::http::{Request, Response};

    pub fn send(request: &Request) -> Result<Response, Error> {
        World::with(|world| {
            world.requests.push(request.clone());
            (world.http)(request)
        })
    }
}

pub mod model {
    use super::World;
    use crate::Error;
    use crate::model::{Answer, Question};

    pub fn ask(question: &Question) -> Result<Answer, Error> {
        World::with(|world| {
            world.questions.push(question.clone());
            (world.models)(question)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{World, kv};
    use crate::Error;

    #[test]
    fn values_end_and_numbers_add_up() {
        World::with(|world| *world = World::default());
        assert_eq!(kv::increment("n", 2, Some(10)), Ok(2));
        assert_eq!(kv::increment("n", 3, Some(99)), Ok(5));
        assert_eq!(kv::get("n"), Ok(Some(b"5".to_vec())));
        World::with(|world| world.now += 11_000.0);
        assert_eq!(kv::get("n"), Ok(None), "the first time to live counts");
        assert_eq!(kv::increment("n", 1, None), Ok(1));
        assert_eq!(kv::set("t", b"text", None), Ok(()));
        assert!(matches!(kv::increment("t", 1, None), Err(Error::Invalid(_))));
        World::with(|world| world.caller.organization = "other".into());
        assert_eq!(kv::get("t"), Ok(None), "organizations are apart");
        assert_eq!(kv::get(&"k".repeat(513)), Err(Error::TooLarge));
    }
}
