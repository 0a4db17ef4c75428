//! `tidegate keys`

use super::Format;
use super::table;
use crate::gate::{fresh_key, hash_of};
use clap::{Args, Subcommand};

/// Make keys. A key is printed once; the configuration holds only its hash.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidegate keys new --project acme/web --id web-2")]
pub(super) struct Keys {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a key for a project, an organization or a user.
    New(New),
}

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
struct New {
    #[command(flatten)]
    owner: Owner,
    /// The key's name in the books.
    #[arg(long, default_value = "key-1")]
    id: String,
    /// How to print it.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

impl Keys {
    pub fn run(self) -> Result<(), String> {
        let Verb::New(new) = self.verb;
        let (prefix, place) = match (&new.owner.project, &new.owner.organization, &new.owner.user) {
            (Some(path), _, _) => {
                let (organization, project) =
                    path.split_once('/').ok_or("--project takes ORGANIZATION/PROJECT, for example acme/web")?;
                ("dfproj_", format!("[organizations.{organization}.projects.{project}]"))
            }
            (_, Some(organization), _) => ("dforg_", format!("[organizations.{organization}]")),
            (_, _, user) => ("dfuser_", format!("[users.{}]", user.as_deref().unwrap_or_default())),
        };
        let key = fresh_key(prefix)?;
        let hash = hash_of(&key);
        if new.format != Format::Table {
            return table::print(new.format, &["id", "key", "hash"], &[vec![new.id.into(), key.into(), hash.into()]]);
        }
        super::print(&format!(
            "key   {key}\n\nIt is shown only now. Under {place} add to `keys`:\n\n  {{ id = \"{}\", hash = \"{hash}\" }}\n",
            new.id
        ));
        Ok(())
    }
}
