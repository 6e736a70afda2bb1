#![allow(clippy::unwrap_used)]
use super::*;

const RULES: &str = "
# for those without a name
topic read news/#
user anna
topic write lamps/+/set
topic readwrite lamps/state
topic deny lamps/secret/set
pattern readwrite clients/%c/#
pattern read users/%u
";

fn topic(text: &str) -> Topic {
    Topic::new(text).unwrap()
}

fn filter(text: &str) -> TopicFilter {
    TopicFilter::new(text).unwrap()
}

fn rights(user: Option<&str>, client_id: &str) -> Rights {
    let access = BrokerAccess::open().user(Credentials::new("anna", "p")).anonymous(true).rules(RULES).unwrap();
    access.admit(user.map(|name| (name, "p")), client_id).unwrap()
}

#[test]
fn without_rules_everything_is_allowed_to_those_who_are_let_in() {
    let rights = BrokerAccess::open().admit(None, "c").unwrap();
    assert!(rights.may_publish(&topic("a")) && rights.may_subscribe(&filter("#")));
    let closed = BrokerAccess::open().user(Credentials::new("anna", "p"));
    assert!(closed.admit(None, "c").is_none() && !closed.lets_strangers_in());
    assert!(closed.admit(Some(("anna", "q")), "c").is_none() && closed.admit(Some(("bob", "p")), "c").is_none());
    assert!(closed.admit(Some(("anna", "p")), "c").is_some());
}

#[test]
fn rules_say_who_publishes_where() {
    let anna = rights(Some("anna"), "c1");
    for (name, may) in [
        ("lamps/kitchen/set", true),
        ("lamps/state", true),
        ("lamps/secret/set", false),
        ("news/today", false),
        ("clients/c1/up", true),
        ("clients/c2/up", false),
        ("users/anna", false),
    ] {
        assert_eq!(anna.may_publish(&topic(name)), may, "{name}");
    }
    assert!(!rights(None, "c").may_publish(&topic("news/today")));
}

#[test]
fn a_subscription_must_be_allowed_as_a_whole() {
    let anna = rights(Some("anna"), "c1");
    for (name, may) in [
        ("lamps/state", true),
        ("lamps/#", false),
        ("#", false),
        ("clients/c1/#", true),
        ("clients/c1/+/x", true),
        ("clients/+/x", false),
        ("users/anna", true),
        ("users/+", false),
    ] {
        assert_eq!(anna.may_subscribe(&filter(name)), may, "{name}");
    }
    assert!(rights(None, "c").may_subscribe(&filter("news/+/x")));
}

#[test]
fn a_client_id_with_a_wildcard_gets_nothing_by_patterns() {
    assert!(!rights(Some("anna"), "+").may_subscribe(&filter("clients/c2/x")));
    assert!(!rights(Some("anna"), "c1/../c2").may_publish(&topic("clients/c1/../c2/x")));
}

#[test]
fn bad_lines_are_named_without_their_passwords() {
    let rules = |file: &str| BrokerAccess::open().rules(file).unwrap_err().to_string();
    assert_eq!(rules("\ntopics a"), "line 2: \"topics a\" begins with none of user, topic and pattern");
    assert!(rules("topic read a/#/b").starts_with("line 1: topic filter"));
    let passwords = |file: &str| BrokerAccess::open().passwords(file).unwrap_err().to_string();
    assert_eq!(passwords("# users\nanna"), "line 2: has no colon after the name");
    let plain = passwords("anna:secret");
    assert!(plain.contains("mosquitto_passwd") && !plain.contains("secret"), "{plain}");
    let costly = "anna:$7$4000000000$AAAA$AAAA";
    assert!(passwords(costly).starts_with("line 1"));
}

/// The file is made by mosquitto's own tool.
#[test]
fn a_password_file_of_mosquitto_opens() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("passwords");
    for (flag, name, password) in [("-c", "anna", "p w"), ("", "bob", "ö")] {
        let mut tool = std::process::Command::new("mosquitto_passwd");
        tool.arg("-b").args(Some(flag).filter(|flag| !flag.is_empty())).arg(&file).args([name, password]);
        assert!(tool.status().unwrap().success());
    }
    let access = BrokerAccess::open().passwords(&std::fs::read_to_string(&file).unwrap()).unwrap();
    assert!(access.admit(Some(("anna", "p w")), "c").is_some() && access.admit(Some(("bob", "ö")), "c").is_some());
    assert!(access.admit(Some(("anna", "ö")), "c").is_none() && access.admit(None, "c").is_none());
}
