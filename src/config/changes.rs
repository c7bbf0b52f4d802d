//! The keys that differ between two configurations, so that a reload can name those that need a
//! restart.

use super::Config;

impl Config {
    /// Returns the keys, with their sections, whose values differ in `new`, in alphabetical order.
    pub fn changed_keys(&self, new: &Self) -> Vec<String> {
        let (Ok(old), Ok(new)) = (toml::Table::try_from(self), toml::Table::try_from(new)) else {
            // Values of these types can always be serialized. If one ever cannot, report
            // everything as changed.
            return vec!["everything".to_owned()];
        };

        let mut keys = Vec::new();
        compare(&old, &new, "", &mut keys);
        keys.sort();

        keys
    }
}

fn compare(old: &toml::Table, new: &toml::Table, section: &str, keys: &mut Vec<String>) {
    let added = new.keys().filter(|key| !old.contains_key(*key));
    for key in old.keys().chain(added) {
        let path = if section.is_empty() {
            key.clone()
        } else {
            format!("{section}.{key}")
        };

        match (old.get(key), new.get(key)) {
            // Sections are compared key by key. A table below a section is one value.
            (Some(toml::Value::Table(old)), Some(toml::Value::Table(new)))
                if section.is_empty() =>
            {
                compare(old, new, &path, keys);
            }
            (old, new) if old != new => keys.push(path),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_named_by_key() {
        let old = Config::default();
        assert_eq!(old.changed_keys(&old), Vec::<String>::new());
        let mut new = Config::default();
        new.socket.connections = 7;
        new.access.token_users.push("ana".to_owned());
        new.hub
            .endpoints
            .insert("acme/".to_owned(), "https://a".to_owned());
        new.devices.declared = Some("1x24GiB".to_owned());

        let keys = [
            "access.token_users",
            "devices.declared",
            "hub.endpoints",
            "socket.connections",
        ];
        assert_eq!(old.changed_keys(&new), keys);
        assert_eq!(new.changed_keys(&old), keys);
    }
}
