//! Which accounts have labels of their own in metrics: so many, in the order of their ids. The rest is one, so that thousands of
//! tenants do not become thousands of series in each family.

use foldhash::{HashMap, HashSet};
use std::sync::Arc;

/// What the rest is called.
const OTHER: &str = "other";

/// The accounts that have none.
#[derive(Debug, Default)]
pub struct Others {
    organizations: HashSet<Arc<str>>,
    /// Of organizations that have one.
    projects: HashMap<Arc<str>, HashSet<Arc<str>>>,
}

impl Others {
    /// Those beyond so many projects. An organization without projects counts for one: users and its own keys call for it.
    pub fn beyond<'a, P: IntoIterator<Item = &'a Arc<str>>>(
        most: usize,
        accounts: impl IntoIterator<Item = (&'a Arc<str>, P)>,
    ) -> Self {
        let (mut others, mut named) = (Self::default(), 0);
        for (organization, projects) in accounts {
            if named >= most {
                others.organizations.insert(organization.clone());
                continue;
            }
            let before = named;
            for project in projects {
                if named < most {
                    named += 1;
                } else {
                    others.projects.entry(organization.clone()).or_default().insert(project.clone());
                }
            }
            named = named.max(before + 1);
        }
        others
    }

    /// What an account's organization and project are called.
    pub(super) fn labels(&self, organization: &Arc<str>, project: &Arc<str>) -> [Arc<str>; 2] {
        if self.organizations.contains(organization) {
            return [OTHER.into(), OTHER.into()];
        }
        let other = self.projects.get(organization).is_some_and(|projects| projects.contains(project));
        [organization.clone(), if other { OTHER.into() } else { project.clone() }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_are_named_and_the_rest_is_one() {
        let ids = |ids: &[&str]| ids.iter().map(|id| Arc::from(*id)).collect::<Vec<Arc<str>>>();
        let accounts =
            [("acme", ids(&["app", "web"])), ("bare", ids(&[])), ("corp", ids(&["a", "b"])), ("zoo", ids(&["z"]))];
        let accounts = accounts.map(|(organization, projects)| (Arc::<str>::from(organization), projects));
        let beyond = |most| Others::beyond(most, accounts.iter().map(|account| (&account.0, &account.1)));
        for (most, named) in [
            (0, "other/other other/other other/other other/other other/other"),
            (1, "acme/app acme/other other/other other/other other/other"),
            (3, "acme/app acme/web bare/ other/other other/other"),
            (4, "acme/app acme/web bare/ corp/a corp/other"),
            (9, "acme/app acme/web bare/ corp/a corp/b"),
        ] {
            let others = beyond(most);
            let labels = [("acme", "app"), ("acme", "web"), ("bare", ""), ("corp", "a"), ("corp", "b")]
                .map(|(organization, project)| others.labels(&organization.into(), &project.into()).join("/"));
            assert_eq!(labels.join(" "), named, "{most}");
        }
        // Requests without a caller are nobody else's.
        assert_eq!(beyond(0).labels(&"".into(), &"".into()).join("/"), "/");
    }
}
