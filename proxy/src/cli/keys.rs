//! `tidegate keys`

use super::table;
use super::{Format, From};
use crate::config::{self, Config, Problem};
use crate::gate::{Key, checked_id, fresh_key, hash_of};
use clap::{Args, Subcommand};
use std::path::Path;

/// Make keys. A key is printed once; the configuration holds only its hash.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct Keys {
    #[command(flatten)]
    from: From,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a key for a project, an organization or a user.
    New(New),
}

const EXAMPLE: &str = "Example:\n  tidegate keys new --project acme/web --id web-2\n  \
                       tidegate keys new --user root --format json --config /etc/tidegate/tidegate.toml";

#[derive(Debug, Args)]
#[group(id = "owner", required = true, multiple = false)]
struct Owner {
    /// ORGANIZATION/PROJECT
    #[arg(long, group = "owner")]
    project: Option<String>,
    /// ORGANIZATION: for all its projects
    #[arg(long, group = "owner")]
    organization: Option<String>,
    /// USER
    #[arg(long, group = "owner")]
    user: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_help = EXAMPLE)]
struct New {
    #[command(flatten)]
    owner: Owner,
    /// The key's name in the books; the first of key-1, key-2 and so on that is free where absent.
    #[arg(long)]
    id: Option<String>,
    /// How to print it.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

impl Keys {
    pub fn run(self) -> Result<(), String> {
        let Verb::New(new) = self.verb;
        let holder = new.owner.read()?;
        let known = self.from.glance()?;
        let known = known.as_ref().map(|(file, config)| (file.as_path(), config));
        let beside = known.and_then(|(_, config)| holder.keys(config)).unwrap_or_default();
        let id = new.id.unwrap_or_else(|| free_id(beside));
        let (is_there, place) = holder.place(&id, known);
        let key = fresh_key(holder.prefix())?;
        let hash = hash_of(&key);
        if new.format != Format::Table {
            if !is_there {
                eprintln!("tidegate: [{}] is not in the configuration yet", holder.section());
            }
            return table::print(new.format, &["id", "key", "hash"], &[vec![id.into(), key.into(), hash.into()]]);
        }
        super::print(&format!(
            "key   {key}\n\nIt is shown only now. {place} add to `keys`:\n\n  {}\n",
            entry(&id, &hash)
        ));
        Ok(())
    }
}

/// What stands for a key in a configuration. Its id may be any text.
fn entry(id: &str, hash: &str) -> String {
    format!("{{ id = {}, hash = \"{hash}\" }}", toml_edit::Value::from(id))
}

/// An id that none of these keys has.
fn free_id(keys: &[Key]) -> String {
    let is_free = |id: &String| keys.iter().all(|key| *key.id != **id);
    (1..=keys.len() + 1).map(|number| format!("key-{number}")).find(is_free).unwrap_or_default()
}

/// Whose key it is.
#[derive(Debug, Clone, Copy)]
enum Holder<'a> {
    Project(&'a str, &'a str),
    Organization(&'a str),
    User(&'a str),
}

impl Owner {
    fn read(&self) -> Result<Holder<'_>, String> {
        Ok(match (&self.project, &self.organization, &self.user) {
            (Some(path), _, _) => {
                let (organization, project) =
                    path.split_once('/').ok_or("--project takes ORGANIZATION/PROJECT, for example acme/web")?;
                Holder::Project(checked_id(organization)?, checked_id(project)?)
            }
            (_, Some(organization), _) => Holder::Organization(checked_id(organization)?),
            (_, _, user) => Holder::User(checked_id(user.as_deref().unwrap_or_default())?),
        })
    }
}

impl Holder<'_> {
    fn prefix(self) -> &'static str {
        match self {
            Self::Project(..) => "dfproj_",
            Self::Organization(_) => "dforg_",
            Self::User(_) => "dfuser_",
        }
    }

    /// Its section of a configuration.
    fn section(self) -> String {
        match self {
            Self::Project(organization, project) => format!("organizations.{organization}.projects.{project}"),
            Self::Organization(organization) => format!("organizations.{organization}"),
            Self::User(user) => format!("users.{user}"),
        }
    }

    /// The keys it has there, if it is there.
    fn keys(self, config: &Config) -> Option<&[Key]> {
        match self {
            Self::Project(id, project) => Some(&config.organizations.get(id)?.projects.get(project)?.keys),
            Self::Organization(id) => Some(&config.organizations.get(id)?.keys),
            Self::User(id) => Some(&config.users.get(id)?.keys),
        }
    }

    /// Where the key is to be registered, as the beginning of a sentence, and whether that is there already.
    fn place(self, id: &str, known: Option<(&Path, &Config)>) -> (bool, String) {
        let section = self.section();
        let Some((file, config)) = known else { return (true, format!("Under [{section}]")) };
        let name = file.display();
        let Some(keys) = self.keys(config) else {
            return (false, format!("{name} has no [{section}] yet: make it, and"));
        };
        let mut found = [Problem::new(section.clone(), "")];
        config::place(Some(file), &mut found);
        let line = found[0].place.as_ref().map_or_else(String::new, |(_, line)| format!(", line {line}"));
        let taken = if keys.iter().any(|key| *key.id == *id) { ", which has a key of this id already" } else { "" };
        (true, format!("Under [{section}] of {name}{line}{taken},"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use figment::providers::{Format as _, Toml};
    use std::collections::BTreeMap;

    #[test]
    fn a_key_is_placed_where_its_holder_stands() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("t.toml");
        let hash = hash_of("dfproj_x");
        let text = format!(
            "[users.root]\nadmin = true\n\n[organizations.acme.projects.web]\nkeys = [{{ id = \"web-1\", hash = \"{hash}\" }}]\n"
        );
        std::fs::write(&file, text).unwrap();
        let config = crate::app::load(Some(&file), &[]).unwrap();
        let told = |holder: Holder, id: &str, known: bool| {
            let known = known.then_some((file.as_path(), &config));
            let (is_there, place) = holder.place(id, known);
            format!("{is_there} {place}").replace(&file.display().to_string(), "F")
        };
        for (holder, id, known, says) in [
            (Holder::Project("acme", "web"), "web-1", false, "true Under [organizations.acme.projects.web]"),
            (Holder::Project("acme", "web"), "b", true, "true Under [organizations.acme.projects.web] of F, line 4,"),
            (
                Holder::Project("acme", "web"),
                "web-1",
                true,
                "true Under [organizations.acme.projects.web] of F, line 4, which has a key of this id already,",
            ),
            (
                Holder::Project("acme", "wbe"),
                "b",
                true,
                "false F has no [organizations.acme.projects.wbe] yet: make it, and",
            ),
            (Holder::Organization("globex"), "b", true, "false F has no [organizations.globex] yet: make it, and"),
            (Holder::User("root"), "b", true, "true Under [users.root] of F, line 1,"),
        ] {
            assert_eq!(told(holder, id, known), says);
        }
    }

    #[test]
    fn holders_have_ids_that_a_configuration_takes() {
        let mut owner = Owner { project: None, organization: None, user: None };
        assert!(owner.read().is_err());
        for (project, is_good) in
            [("acme/web", true), ("acme", false), ("acme/w b", false), ("/web", false), ("a/b/c", false)]
        {
            owner.project = Some(project.to_owned());
            assert_eq!(owner.read().is_ok(), is_good, "{project}");
        }
    }

    #[test]
    fn an_entry_is_toml_whatever_the_id() {
        for id in ["web-1", "a \"b\" c", "a\\b", "two\nlines"] {
            let text = format!("keys = [ {} ]", entry(id, &hash_of("x")));
            let read = Toml::from_str::<BTreeMap<String, Vec<Key>>>(&text).unwrap();
            assert_eq!(&*read["keys"][0].id, id, "{text}");
        }
    }

    #[test]
    fn an_id_that_is_free_is_found() {
        let key = |id: &str| format!(r#"{{"id":"{id}","hash":"{}"}}"#, hash_of(id));
        for (ids, free) in [("", "key-1"), ("web-1", "key-1"), ("key-1 key-3", "key-2"), ("key-2 key-1", "key-3")] {
            let keys: Vec<Key> = ids.split_whitespace().map(|id| serde_json::from_str(&key(id)).unwrap()).collect();
            assert_eq!(free_id(&keys), free, "{ids:?}");
        }
    }
}
