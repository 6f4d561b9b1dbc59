//! What the database that Synapse made does not hold: other servers' users, bridges, rooms and names that are odd. What is
//! expected stands here by hand, by Synapse's documentation of its user directory and by Matrix's specification.

use serde_json::{Value, json};

use super::{do_jobs, folder, name_of, unpacked};
use crate::support::on_both;
use crate::support::place::Place;

const SERVER: &str = "here.example";

/// A world that is being written.
struct World {
    sql: String,
    events: u32,
}

impl World {
    /// The empty tables.
    fn new(place: &Place) -> Self {
        let sql = unpacked(&format!("{}.sql.gz", name_of(place)));
        let is_schema = |line: &&str| line.starts_with("CREATE") || line.starts_with("ALTER");
        let sql = sql.lines().filter(is_schema).collect::<Vec<_>>().join("\n");
        let positions = "INSERT INTO stats_incremental_position (stream_id) VALUES (7);
            INSERT INTO user_directory_stream_pos (stream_id) VALUES (7);";
        Self { sql: format!("{sql}\n{positions}\n"), events: 0 }
    }

    fn add(&mut self, sql: &str) {
        self.sql += &format!("{sql};\n");
    }

    fn room(&mut self, room: &str) {
        self.add(&format!("INSERT INTO rooms (room_id, is_public, room_version) VALUES ('{room}', false, '11')"));
    }

    /// A user of this server, with what else stands in its row, and a profile where `name` is one.
    fn user(&mut self, name: &str, else_columns: &str, else_values: &str) {
        self.add(&format!("INSERT INTO users (name{else_columns}) VALUES ('@{name}:{SERVER}'{else_values})"));
    }

    fn profile(&mut self, name: &str, display_name: Option<&str>, avatar: Option<&str>) {
        let text = |text: Option<&str>| text.map_or("NULL".to_owned(), |text| format!("'{text}'"));
        let (display_name, avatar) = (text(display_name), text(avatar));
        self.add(&format!(
            "INSERT INTO profiles (user_id, displayname, avatar_url, full_user_id) \
             VALUES ('{name}', {display_name}, {avatar}, '@{name}:{SERVER}')"
        ));
    }

    fn event(&mut self, room: &str, kind: &str) -> String {
        self.events += 1;
        let (number, id) = (self.events, format!("$e{}", self.events));
        self.add(&format!(
            "INSERT INTO events (stream_ordering, topological_ordering, event_id, type, room_id, processed, outlier) \
             VALUES ({number}, {number}, '{id}', '{kind}', '{room}', true, false)"
        ));
        id
    }

    /// An event of the room's current state; `content` as it stands in JSON.
    fn state(&mut self, room: &str, kind: &str, content: &str) -> String {
        let id = self.event(room, kind);
        let number = self.events;
        self.add(&format!(
            "INSERT INTO current_state_events (event_id, room_id, type, state_key, event_stream_ordering) \
             VALUES ('{id}', '{room}', '{kind}', '', {number})"
        ));
        self.add(&format!(
            "INSERT INTO event_json (event_id, room_id, internal_metadata, json) \
             VALUES ('{id}', '{room}', '{{}}', '{{\"content\":{content},\"type\":\"{kind}\"}}')"
        ));
        id
    }

    /// A user's place in a room, and how it shows itself there.
    fn member(&mut self, room: &str, user: &str, membership: &str, display_name: &str) {
        let id = self.event(room, "m.room.member");
        let number = self.events;
        self.add(&format!(
            "INSERT INTO current_state_events (event_id, room_id, type, state_key, membership, event_stream_ordering) \
             VALUES ('{id}', '{room}', 'm.room.member', '{user}', '{membership}', {number})"
        ));
        self.add(&format!(
            "INSERT INTO room_memberships (event_id, user_id, sender, room_id, membership, display_name, avatar_url) \
             VALUES ('{id}', '{user}', '{user}', '{room}', '{membership}', '{display_name}', 'mxc://{display_name}')"
        ));
    }

    /// A room that may be joined by rule, and its members, who are joined.
    fn room_of(&mut self, room: &str, rule: &str, members: &[&str]) {
        self.room(room);
        self.state(room, "m.room.create", "{}");
        self.state(room, "m.room.join_rules", &json!({ "join_rule": rule }).to_string());
        for member in members {
            self.member(room, member, "join", "in_room");
        }
    }
}

fn here(name: &str) -> String {
    format!("@{name}:{SERVER}")
}

async fn people(place: &Place) -> World {
    let mut world = World::new(place);
    for name in ["alice", "bob", "carol", "noname", "empty", "xslacky"] {
        world.user(name, "", "");
    }
    world.user("locked", ", locked", ", true");
    world.user("guest", ", is_guest", ", 1");
    world.user("bot", ", user_type", ", 'bot'");
    world.user("dead", ", deactivated", ", 1");
    world.user("support", ", user_type", ", 'support'");
    world.user("_irc_x", ", appservice_id", ", 'irc'");
    world.user("_slack_y", "", "");
    world.user("bare", "", "");
    world.profile("alice", Some("Alice"), Some("mxc://alice"));
    world.profile("carol", Some("ＣＡＲΟΣ ﬁ ÅSA"), None);
    world.profile("noname", None, None);
    world.profile("empty", Some(""), None);
    for name in ["bob", "locked", "guest", "bot", "dead", "support", "_irc_x", "_slack_y", "xslacky"] {
        world.profile(name, Some(name), None);
    }
    // Of nobody any more.
    world.profile("gone", Some("Gone"), None);
    world
}

async fn all(place: &Place, sql: &str) -> Vec<String> {
    place.rows(sql).await
}

on_both! {
    async fn who_is_in_the_directory_and_who_sees_whom(place: Place) {
        let mut world = people(place).await;
        let everybody = ["alice", "dead", "support", "bot", "_irc_x", "_slack_y"].map(here);
        let everybody: Vec<&str> = everybody.iter().map(String::as_str).collect();
        world.room_of("!d_public", "public", &everybody);
        world.member("!d_public", "@star:there.example", "join", "Seen");
        world.member("!d_public", &here("bob"), "invite", "x");
        world.member("!d_public", &here("carol"), "ban", "x");
        world.member("!d_public", &here("locked"), "knock", "x");
        world.member("!d_public", &here("noname"), "leave", "x");
        let (alice, bob, carol) = (here("alice"), here("bob"), here("carol"));
        world.room_of("!e_private", "invite", &[&alice, &bob, &here("dead"), &here("_irc_x"), "@pal:there.example"]);
        world.room_of("!f_private", "knock", &[&carol]);
        world.member("!f_private", "@star:there.example", "join", "Private");
        // Later than in the other room, and later than it.
        world.member("!f_private", "@pal:there.example", "join", "Lately");
        // Open to be read, which is public; a server's name with a port, and one that ends like ours.
        world.room_of("!g_world", "invite", &[&carol, "@eve:here.example:8448", "@eve:xhere.example"]);
        world.state("!g_world", "m.room.history_visibility", r#"{"history_visibility":"world_readable"}"#);
        // Nobody of ours is there; only somebody is who is in no table.
        world.room_of("!h_there", "public", &["@far:there.example"]);
        world.room_of("!i_alone", "invite", &[&here("dead"), "@near:there.example"]);
        // What was in the tables before: of rooms that are gone, before, between and behind those that are there.
        for room in ["!a_gone", "!d_q_gone", "!z_gone"] {
            world.add(&format!("INSERT INTO users_in_public_rooms VALUES ('{alice}', '{room}')"));
            world.add(&format!("INSERT INTO users_who_share_private_rooms VALUES ('{alice}', '{bob}', '{room}')"));
        }
        for user in [alice.as_str(), "@ghost:here.example", &here("dead"), "@old:there.example", "@far:there.example"] {
            world.add(&format!("INSERT INTO user_directory VALUES ('{user}', '!z_gone', 'Before', 'mxc://before')"));
            let column = place.either("value", "vector");
            world.add(&format!("INSERT INTO user_directory_search (user_id, {column}) VALUES ('{user}', 'before')"));
        }
        world.add("INSERT INTO current_state_delta_stream (stream_id, room_id, type, state_key) VALUES (11, '!e', 'm', '')");
        place.run(&world.sql).await;

        for _ in 0..2 {
            do_jobs(place, folder(place, "sleep_enabled = false\nmax_batch_size = 2", SERVER, &[r"@\_slack\_%"])).await;
            assert_eq!(
                all(place, "select room_id || ' ' || user_id from users_in_public_rooms order by 1").await,
                [
                    "!d_public @alice:here.example",
                    "!d_public @bot:here.example",
                    "!d_public @star:there.example",
                    "!g_world @carol:here.example",
                    "!g_world @eve:here.example:8448",
                    "!g_world @eve:xhere.example",
                ]
            );
            let shared = "select room_id || ' ' || user_id || ' ' || other_user_id from users_who_share_private_rooms order by 1";
            assert_eq!(
                all(place, shared).await,
                [
                    "!e_private @alice:here.example @bob:here.example",
                    "!e_private @alice:here.example @pal:there.example",
                    "!e_private @bob:here.example @alice:here.example",
                    "!e_private @bob:here.example @pal:there.example",
                    "!f_private @carol:here.example @pal:there.example",
                    "!f_private @carol:here.example @star:there.example",
                ]
            );
            let directory = "select user_id || ' ' || coalesce(room_id, '-') || ' ' || coalesce(display_name, '-') || ' ' || \
                             coalesce(avatar_url, '-') from user_directory order by user_id";
            assert_eq!(
                all(place, directory).await,
                [
                    "@alice:here.example - Alice mxc://alice",
                    "@bare:here.example - - -",
                    "@bob:here.example - bob -",
                    "@bot:here.example - bot -",
                    "@carol:here.example - ＣＡＲΟΣ ﬁ ÅSA -",
                    "@empty:here.example -  -",
                    "@eve:here.example:8448 - in_room mxc://in_room",
                    "@eve:xhere.example - in_room mxc://in_room",
                    "@guest:here.example - guest -",
                    "@locked:here.example - locked -",
                    "@near:there.example - in_room mxc://in_room",
                    "@noname:here.example - - -",
                    "@pal:there.example - Lately mxc://Lately",
                    "@star:there.example - Seen mxc://Seen",
                    "@xslacky:here.example - xslacky -",
                ]
            );
            // Each once, also where it is searched for, and in small letters of any script.
            let searched = all(place, "select user_id from user_directory_search order by user_id").await;
            assert_eq!(searched, all(place, "select user_id from user_directory order by user_id").await);
            let of_before = place.either("value like '%before%'", "vector::text like '%before%'");
            assert!(all(place, &format!("select user_id from user_directory_search where {of_before}")).await.is_empty());
            let of_carol = all(place, place.either(
                "select value from user_directory_search where user_id like '@carol:%'",
                "select vector from user_directory_search where user_id like '@carol:%'",
            ))
            .await;
            let wanted = place.either("@carol:here.example carος fi åsa", "'carol':1A 'carος':3B 'fi':4B 'here.example':2 'åsa':5B");
            assert_eq!(of_carol, [wanted]);
            assert_eq!(all(place, "select stream_id from user_directory_stream_pos").await, ["11"]);
        }
        let left = all(place, place.either(
            "select name from sqlite_schema where name like 'tidegate_user%'",
            "select tablename from pg_tables where tablename like 'tidegate_user%'",
        ));
        assert!(left.await.is_empty());
    }

    async fn what_rooms_say_of_themselves(place: Place) {
        let mut world = people(place).await;
        let alice = here("alice");
        world.room_of("!a_plain", "public", &[&alice, "@pal:there.example"]);
        world.member("!a_plain", &here("bob"), "invite", "x");
        world.member("!a_plain", &here("carol"), "ban", "x");
        world.member("!a_plain", "@k:there.example", "knock", "x");
        world.member("!a_plain", "@l:there.example", "leave", "x");
        world.state("!a_plain", "m.room.name", r#"{"name":"Z\u00fcrich"}"#);
        world.state("!a_plain", "m.room.topic", r#"{"topic":"old","m.topic":{"m.text":[{"mimetype":"text/html","body":"<b>"},{"body":"plain"}]}}"#);
        // Values of other kinds are none.
        world.room("!b_odd");
        world.state("!b_odd", "m.room.create", r#"{"m.federate":"yes","type":5}"#);
        world.state("!b_odd", "m.room.name", r#"{"name":["x"]}"#);
        world.state("!b_odd", "m.room.avatar", r#"{"url":"mxc://\u0000"}"#);
        world.state("!b_odd", "m.room.canonical_alias", r#"{"alias":null}"#);
        world.state("!b_odd", "m.room.topic", r#"{"topic":"back\\u0000slash","m.topic":{"m.text":"x"}}"#);
        world.state("!b_odd", "m.room.encryption", "{}");
        world.member("!b_odd", &alice, "join", "x");
        // Redacted: what its type does not keep is gone, though the text is there still. Not by a redaction that was rejected,
        // nor by one of another room.
        world.room_of("!c_redacted", "public", &[&alice]);
        let name = world.state("!c_redacted", "m.room.name", r#"{"name":"secret"}"#);
        let seen = world.state("!c_redacted", "m.room.history_visibility", r#"{"history_visibility":"joined"}"#);
        let avatar = world.state("!c_redacted", "m.room.avatar", r#"{"url":"mxc://stays"}"#);
        let topic = world.state("!c_redacted", "m.room.topic", r#"{"topic":"stays"}"#);
        for (redacted, room) in [(&name, "!c_redacted"), (&seen, "!c_redacted"), (&avatar, "!a_plain"), (&topic, "!c_redacted")] {
            let by = world.event(room, "m.room.redaction");
            world.add(&format!("INSERT INTO redactions (event_id, redacts) VALUES ('{by}', '{redacted}')"));
        }
        world.add("UPDATE events SET rejection_reason = 'auth_error' WHERE stream_ordering = (SELECT max(stream_ordering) FROM events)");
        world.room("!d_closed");
        world.state("!d_closed", "m.room.create", r#"{"m.federate":false,"type":"m.space"}"#);
        // Left by everybody, once with stats and once without. Below them one whose state does not say what it is.
        world.room("!e_left");
        world.add("INSERT INTO room_stats_current VALUES ('!e_left', 9, 9, 9, 9, 9, 9, 9, 9)");
        world.add("INSERT INTO room_stats_state (room_id, name) VALUES ('!e_left', 'kept')");
        world.room("!f_left");
        world.room("!g_headless");
        world.member("!g_headless", &alice, "join", "x");
        // What was there before is written over, `guest_access` alone is not.
        world.add("INSERT INTO room_stats_state (room_id, name, topic, encryption, guest_access) \
                   VALUES ('!d_closed', 'before', 'before', 'before', 'can_join')");
        world.event("!a_plain", "m.room.message");
        let last = world.events;
        place.run(&world.sql).await;

        for _ in 0..2 {
            do_jobs(place, folder(place, "sleep_enabled = false\nmax_batch_size = 1", SERVER, &[])).await;
            let counted = "select room_id, current_state_events, joined_members, invited_members, left_members, banned_members, \
                           knocked_members, local_users_in_room, completed_delta_stream_id from room_stats_current order by 1";
            assert_eq!(
                all(place, counted).await,
                [
                    format!("!a_plain|10|2|1|1|1|1|1|{last}"),
                    format!("!b_odd|7|1|0|0|0|0|1|{last}"),
                    format!("!c_redacted|7|1|0|0|0|0|1|{last}"),
                    format!("!d_closed|1|0|0|0|0|0|0|{last}"),
                    "!e_left|9|9|9|9|9|9|9|9".to_owned(),
                    format!("!g_headless|1|1|0|0|0|0|1|{last}"),
                ]
            );
            let array = place.either("json_array", "json_build_array");
            let federates = place.either("is_federatable", "is_federatable::int");
            let said = format!(
                "select {array}(room_id, name, canonical_alias, join_rules, history_visibility, encryption, avatar, \
                 guest_access, {federates}, topic, room_type) from room_stats_state order by room_id"
            );
            let said: Vec<Value> = all(place, &said).await.iter().map(|row| serde_json::from_str(row).unwrap()).collect();
            let none: Option<&str> = None;
            assert_eq!(
                said,
                [
                    json!(["!a_plain", "Zürich", none, "public", none, none, none, none, 1, "plain", none]),
                    json!(["!b_odd", none, none, none, none, none, none, none, 0, "back\\u0000slash", none]),
                    json!(["!c_redacted", none, none, "public", "joined", none, "mxc://stays", none, 1, "stays", none]),
                    json!(["!d_closed", none, none, none, none, none, none, "can_join", 0, none, "m.space"]),
                    json!(["!e_left", "kept", none, none, none, none, none, none, none, none, none]),
                    json!(["!g_headless", none, none, none, none, none, none, none, 1, none, none]),
                ]
            );
        }
    }
}
