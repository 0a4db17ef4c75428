//! `GET /v1/models`, `GET /api/tags` and their like: what a caller may use, in the shape it expects.

use super::{Asked, Body, Rooms, admit, head, intake, open_tab, plain_response, refuse, unless_cut, way};
use crate::canon::{About, Fault, Listed, Route};
use crate::gate::Admitted;
use crate::ledger::Tab;
use crate::wire::json::Json;
use crate::wire::object::Object;
use crate::wire::ollama::models::Named;
use crate::wire::{Dialect, anthropic, ollama, openai};
use bytes::Bytes;
use http::Response;
use http::request::Parts;
use std::pin::pin;
use std::sync::Arc;

/// The models of the caller's project.
pub fn list_models(now: &Arc<Rooms>, asked: &Parts, dialect: Dialect, endpoint: &Arc<str>) -> Response<Body> {
    answer(now, asked, dialect, endpoint, |caller| {
        let models = models(now, caller);
        Ok(match dialect {
            Dialect::Chat | Dialect::Responses | Dialect::Completions => openai::models::write_list(&models),
            Dialect::Messages => anthropic::models::write_list(&models),
            Dialect::OllamaChat | Dialect::OllamaGenerate => ollama::models::write_list(&with_more(now, models)),
        })
    })
}

/// One model, by a name that may hold slashes and colons.
pub fn show_model(now: &Arc<Rooms>, asked: &Parts, dialect: Dialect, endpoint: &Arc<str>, id: &str) -> Response<Body> {
    answer(now, asked, dialect, endpoint, |caller| one(now, caller, dialect, id))
}

/// `POST /api/show`: one model, named in a body.
pub async fn tell_of_model(now: Arc<Rooms>, asked: Asked) -> Response<Body> {
    let Asked { head, body, dialect, endpoint } = asked;
    let mut tab = open_tab(&now, &head.headers, dialect, &endpoint);
    let told = async {
        let caller = admit(&now, &head.headers, &mut tab)?;
        let body = intake::read(&head.headers, body, dialect, now.limits).await?;
        let object = Object::read(body).map_err(|_| Fault::invalid("The request body must be a JSON object."))?;
        // Older clients say `name`.
        let name = ["model", "name"].iter().find_map(|key| object.get(key).and_then(Json::as_str));
        let name = name.filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| Fault::invalid("model is required").with_param("model"))?;
        one(&now, &caller, dialect, &name)
    };
    let told = unless_cut(&now, pin!(told)).await;
    finish(told, dialect, tab)
}

/// `GET /api/ps`: of the models of the caller's project those that are known to be in memory, here or at a backend.
pub fn list_running(now: &Arc<Rooms>, asked: &Parts, dialect: Dialect, endpoint: &Arc<str>) -> Response<Body> {
    answer(now, asked, dialect, endpoint, |caller| {
        let mut running = models(now, caller);
        running.retain(|model| model.loaded);
        Ok(ollama::models::write_running(&with_more(now, running)))
    })
}

/// Those with a name of their own, and those that backends list and a pattern lets through, in order.
fn models(now: &Rooms, caller: &Admitted) -> Vec<Listed> {
    let mut names = now.routes.names();
    now.backends.each_listed(|backend, model| {
        if now.routes.passes(model, backend) {
            names.push(model.clone());
        }
    });
    names.sort_unstable();
    names.dedup();
    let known = |name: Arc<str>| Some(now.backends.known(&*now.routes.pick(&name).ok()?, &name));
    names.into_iter().filter(|name| caller.may_use(name)).filter_map(known).collect()
}

/// With what is known of the file of each: something where a target of its own is in this process, and loaded.
fn with_more(now: &Rooms, models: Vec<Listed>) -> Vec<Named> {
    let with_more = |model: Listed| {
        let more = now.routes.pick(&model.name).ok().and_then(|route| about(now, &route));
        (tagged(now, model), more)
    };
    models.into_iter().map(with_more).collect()
}

/// As Ollama lists it, with a tag. Some clients put the default one behind a name without and look for that in the list.
fn tagged(now: &Rooms, model: Listed) -> Listed {
    let name = format!("{}:latest", model.name);
    if *now.routes.named(&name) == *model.name { Listed { name: name.into(), ..model } } else { model }
}

fn about(now: &Rooms, route: &Route) -> Option<About> {
    route.hops[..route.own].iter().find_map(|hop| now.backends.about(&hop.backend))
}

fn one(now: &Rooms, caller: &Admitted, dialect: Dialect, id: &str) -> Result<Bytes, Fault> {
    let route = way::open_to(now, caller, id)?;
    let model = now.backends.known(&route, &id.into());
    Ok(match dialect {
        Dialect::Chat | Dialect::Responses | Dialect::Completions => openai::models::write(&model),
        Dialect::Messages => anthropic::models::write(id),
        Dialect::OllamaChat | Dialect::OllamaGenerate => {
            let only_embeds = route.hops.iter().all(|hop| now.backends.only_embeds(&hop.backend));
            ollama::models::write(&model, about(now, &route).as_ref(), only_embeds)
        }
    })
}

fn answer(
    now: &Arc<Rooms>,
    asked: &Parts,
    dialect: Dialect,
    endpoint: &Arc<str>,
    write: impl FnOnce(&Admitted) -> Result<Bytes, Fault>,
) -> Response<Body> {
    let mut tab = open_tab(now, &asked.headers, dialect, endpoint);
    let written = admit(now, &asked.headers, &mut tab).and_then(|caller| write(&caller));
    finish(written, dialect, tab)
}

fn finish(written: Result<Bytes, Fault>, dialect: Dialect, mut tab: Tab) -> Response<Body> {
    match written {
        Ok(bytes) => {
            let mut response = plain_response(200, "application/json", bytes);
            head::describe(response.headers_mut(), dialect, &tab);
            tab.answered(200);
            tab.done();
            response
        }
        Err(fault) => refuse(dialect, &fault, tab),
    }
}
