//! The schemas of PostgreSQL.

use super::*;

pub(super) fn on_postgres() -> Vec<Schema> {
    let rls = |name, role, expected| Schema { name, role, expected, after: POLICY, ..PLAIN };
    let leak = |text: String| -> &'static str { text.leak() };
    let trigger = |what: &str| leak(POSTGRES_TRIGGER.replace("WHAT", what));
    vec![
        PLAIN,
        QUOTED,
        PARENT,
        Schema {
            name: "inheritance-only",
            reach: Reach { only: true, ..REACH },
            source: "ONLY {t}",
            meant: |kind| match kind {
                // A constraint of the parent holds for the children too.
                Kind::ValidateAndDelete => "1 = 1",
                _ => "tableoid = '{t}'::regclass",
            },
            ..PARENT
        },
        Schema {
            name: "inheritance-child",
            table:
                "CREATE TABLE {p} ({columns}, PRIMARY KEY ({id})); CREATE TABLE {t} (PRIMARY KEY ({id})) INHERITS ({p});
                    INSERT INTO {p} SELECT g, -g, 1, 'old', 0, 0, 'of the parent' FROM generate_series(1, 30) g",
            bystander: Some("SELECT * FROM ONLY {p} ORDER BY 1"),
            ..PLAIN
        },
        Schema {
            name: "range",
            table: leak(format!(
                "{RANGES} CREATE TABLE {{f}} PARTITION OF {{t}} FOR VALUES FROM (MINVALUE) TO (50);
                 CREATE TABLE {{p}} PARTITION OF {{t}} FOR VALUES FROM (300) TO (MAXVALUE)"
            )),
            ..PARTITIONED
        },
        Schema {
            name: "range-default",
            table: leak(format!("{RANGES} CREATE TABLE {{f}} PARTITION OF {{t}} DEFAULT")),
            ..PARTITIONED
        },
        Schema {
            name: "list",
            table: leak(format!("{LISTS} CREATE TABLE {{f}} PARTITION OF {{t}} FOR VALUES IN (3, 4)")),
            extra: Some(("part", |tag| (tag % 5).to_string())),
            ..PARTITIONED
        },
        Schema {
            name: "list-default",
            table: leak(format!("{LISTS} CREATE TABLE {{f}} PARTITION OF {{t}} DEFAULT")),
            extra: Some(("part", |tag| (tag % 5).to_string())),
            ..PARTITIONED
        },
        Schema {
            name: "hash",
            table: "CREATE TABLE {t} ({columns}, PRIMARY KEY ({id})) PARTITION BY HASH ({id});
                    CREATE TABLE {c1} PARTITION OF {t} FOR VALUES WITH (MODULUS 2, REMAINDER 0);
                    CREATE TABLE {c2} PARTITION OF {t} FOR VALUES WITH (MODULUS 2, REMAINDER 1)",
            ..PARTITIONED
        },
        Schema {
            name: "partitions-of-partitions",
            table: "CREATE TABLE {t} ({columns}, PRIMARY KEY ({id})) PARTITION BY RANGE ({id});
                    CREATE TABLE {c1} PARTITION OF {t} FOR VALUES FROM (MINVALUE) TO (200) PARTITION BY HASH ({id});
                    CREATE TABLE {c2} PARTITION OF {c1} FOR VALUES WITH (MODULUS 2, REMAINDER 0);
                    CREATE TABLE {p} PARTITION OF {c1} FOR VALUES WITH (MODULUS 2, REMAINDER 1);
                    CREATE TABLE {f} PARTITION OF {t} DEFAULT",
            ..PARTITIONED
        },
        rls("rls-enabled", Role::Other, bound),
        Schema {
            after: leak(format!("{POLICY} ALTER TABLE {{t}} FORCE ROW LEVEL SECURITY")),
            ..rls("rls-forced", Role::Owner, bound_owner)
        },
        rls("rls-bypassed", Role::Superuser, |_| Right),
        rls("rls-owner-bypasses", Role::Owner, |_| Right),
        Schema {
            reach: Reach { row_security: true, ..REACH },
            meant: |_| "{n} % 2 = 0",
            ..rls("rls-asked-for", Role::Other, asked)
        },
        POSTGRES_VIEW,
        Schema {
            name: "generated-stored",
            table: "CREATE TABLE {t} ({columns}, doubled integer GENERATED ALWAYS AS ({n} * 2) STORED, PRIMARY KEY ({id}))",
            sound: Some("SELECT {tag} FROM {t} WHERE doubled <> {n} * 2"),
            ..PLAIN
        },
        Schema {
            name: "generated-key",
            value: |tag| (3 * tag).to_string(),
            given: false,
            table: "CREATE TABLE {t} ({id} integer GENERATED ALWAYS AS (3 * {tag}) STORED, {others}, PRIMARY KEY ({id}))",
            ..PLAIN
        },
        Schema {
            name: "identity-always",
            table: "CREATE TABLE {t} ({id} integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, {others})",
            overriding: " OVERRIDING SYSTEM VALUE",
            ..PLAIN
        },
        Schema {
            name: "trigger-touches",
            table: "CREATE TABLE {t} ({columns}, stamp integer NOT NULL DEFAULT 0, PRIMARY KEY ({id}));
                    CREATE TABLE {c1} (tag integer NOT NULL)",
            after: "CREATE FUNCTION {f}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                        IF TG_OP = 'UPDATE' THEN NEW.stamp := OLD.stamp + 1; RETURN NEW; END IF;
                        INSERT INTO {c1} VALUES (OLD.{tag}); RETURN OLD;
                    END $$;
                    CREATE TRIGGER touches BEFORE UPDATE OR DELETE ON {t} FOR EACH ROW EXECUTE FUNCTION {f}()",
            sound: Some(
                "SELECT {tag} FROM {t} WHERE stamp < {touched} + {edits} UNION ALL SELECT tag FROM start \
                 WHERE tag NOT IN (SELECT {tag} FROM {t}) AND tag NOT IN (SELECT tag FROM {c1})",
            ),
            ..PLAIN
        },
        Schema { name: "trigger-skips", after: trigger("RETURN NULL"), expected: skipped, meant: spared, ..PLAIN },
        Schema {
            name: "trigger-skips-ignored",
            after: trigger("RETURN NULL"),
            reach: IGNORING,
            expected: skipped_and_ignored,
            meant: spared,
            ..PLAIN
        },
        Schema { name: "trigger-raises", after: trigger("RAISE EXCEPTION 'hands off'"), expected: raised_by_function, ..PLAIN },
        Schema {
            name: "trigger-moves-key",
            value: |tag| (10 * tag).to_string(),
            after: "CREATE FUNCTION {f}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                        IF NEW.{touched} <> OLD.{touched} THEN NEW.{id} := NEW.{id} + 355; END IF; RETURN NEW;
                    END $$;
                    CREATE TRIGGER moves BEFORE UPDATE ON {t} FOR EACH ROW EXECUTE FUNCTION {f}()",
            expected: moved_ahead,
            ..PLAIN
        },
        Schema {
            name: "trigger-moves-key-afterwards",
            value: |tag| (10 * tag).to_string(),
            after: "CREATE FUNCTION {f}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                        UPDATE {t} SET {id} = {id} + 355 WHERE {id} = NEW.{id} AND NEW.{touched} <> OLD.{touched};
                        RETURN NULL;
                    END $$;
                    CREATE TRIGGER moves AFTER UPDATE ON {t} FOR EACH ROW EXECUTE FUNCTION {f}()",
            expected: moved_ahead,
            ..PLAIN
        },
        Schema {
            name: "trigger-moves-key-at-commit",
            value: |tag| (10 * tag).to_string(),
            after: "CREATE FUNCTION {f}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                        UPDATE {t} SET {id} = {id} + 355 WHERE {id} = NEW.{id} AND NEW.{touched} <> OLD.{touched};
                        RETURN NULL;
                    END $$;
                    CREATE CONSTRAINT TRIGGER moves AFTER UPDATE ON {t} DEFERRABLE INITIALLY DEFERRED
                        FOR EACH ROW EXECUTE FUNCTION {f}()",
            expected: moved_ahead,
            ..PLAIN
        },
        Schema {
            name: "trigger-moves-key-and-catches-errors",
            value: |tag| (10 * tag).to_string(),
            after: "CREATE FUNCTION {f}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                        BEGIN
                            UPDATE {t} SET {id} = {id} + 355 WHERE {id} = NEW.{id} AND NEW.{touched} <> OLD.{touched};
                        EXCEPTION WHEN division_by_zero THEN NULL;
                        END;
                        RETURN NULL;
                    END $$;
                    CREATE TRIGGER moves AFTER UPDATE ON {t} FOR EACH ROW EXECUTE FUNCTION {f}()",
            expected: moved_ahead,
            ..PLAIN
        },
        Schema {
            name: "rule-instead",
            after: "CREATE RULE keeps AS ON DELETE TO {t} WHERE OLD.{tag} % 100 = 14 DO INSTEAD NOTHING;
                    CREATE RULE stays AS ON UPDATE TO {t} WHERE OLD.{tag} % 100 = 14 AND NEW.{touched} <> OLD.{touched}
                        DO INSTEAD NOTHING;
                    CREATE RULE omits AS ON INSERT TO {t} WHERE NEW.{tag} % 100 = 14 DO INSTEAD NOTHING",
            expected: |kind| match kind {
                Kind::Backfill | Kind::Transform | Kind::Delete | Kind::ValidateAndDelete | Kind::Copy | Kind::CopyIgnore => {
                    Refused("puts something else in the place of")
                }
                _ => Right,
            },
            ..PLAIN
        },
        Schema {
            name: "rule-also",
            table: "CREATE TABLE {t} ({columns}, PRIMARY KEY ({id})); CREATE TABLE {c1} (tag integer NOT NULL)",
            after: "CREATE RULE audits AS ON DELETE TO {t} DO ALSO INSERT INTO {c1} VALUES (OLD.{tag});
                    CREATE RULE notes AS ON UPDATE TO {t} DO ALSO INSERT INTO {c1} VALUES (OLD.{tag})",
            expected: |kind| match kind {
                Kind::CopyIgnore => Refused("ON CONFLICT"),
                _ => Right,
            },
            ..PLAIN
        },
        COMPOSITE,
        NOT_UNIQUE,
        DESCENDING,
        TEXT,
        keys("bigint-extremes", "bigint", |tag| match tag {
            14 => "-9223372036854775808".to_owned(),
            114 => "9223372036854775807".to_owned(),
            _ => (i64::from(tag) * 1_000_000_007).to_string(),
        }),
        Schema {
            before: "CREATE DOMAIN code AS text CHECK (value <> '')",
            ..keys("domain-key", "code", |tag| format!("'c{}'", scattered(tag)))
        },
        Schema {
            before: "CREATE TYPE mood AS ENUM ('sad', 'Ok', 'happy', 'a''b', 'last')",
            table: "CREATE TABLE {t} ({columns}, PRIMARY KEY ({tag})); CREATE INDEX {c1} ON {t} ({id})",
            ..keys("enum-key", "mood", |tag| {
                ["'happy'", "'sad'", "'a''b'", "'Ok'", "'last'"][tag as usize % 5].to_owned()
            })
        },
        Schema {
            before: "CREATE EXTENSION citext",
            ..keys(
                "citext-key",
                "citext",
                |tag| {
                    if tag % 4 == 0 { format!("'Key{tag}'") } else { format!("'kEY{tag}'") }
                },
            )
        },
        keys("numeric-key", "numeric", |tag| match tag {
            14 => "'NaN'".to_owned(),
            114 => "'-Infinity'".to_owned(),
            _ => format!("{tag} / 7.0"),
        }),
        keys("double-key", "double precision", |tag| match tag {
            14 => "'NaN'".to_owned(),
            114 => "'-Infinity'".to_owned(),
            _ => format!("{tag}::double precision / 7"),
        }),
        keys("timestamptz-key", "timestamptz", |tag| match tag {
            14 => "'infinity'".to_owned(),
            114 => "'-infinity'".to_owned(),
            _ => format!("'2024-03-31 00:00:00.000001+00'::timestamptz + {tag} * interval '97 s'"),
        }),
        keys("date-key", "date", |tag| match tag {
            14 => "'infinity'".to_owned(),
            114 => "'0044-03-15 BC'".to_owned(),
            _ => format!("'2024-01-01'::date + {tag}"),
        }),
        keys("interval-key", "interval", |tag| format!("{tag} * interval '-1 month 2 days 3.5 s'")),
        keys("bytea-key", "bytea", |tag| match tag {
            14 => "''".to_owned(),
            _ => format!("decode(md5('{tag}'), 'hex')"),
        }),
        keys("uuid-key", "uuid", |tag| format!("md5('{tag}')::uuid")),
        keys("char-key", "character(12)", |tag| format!("'{}'", scattered(tag))),
        keys("inet-key", "inet", |tag| format!("'10.0.{}.{}/24'::inet", tag / 200, tag % 200)),
        keys("array-key", "integer[]", |tag| format!("ARRAY[{}, {tag}]", tag % 3)),
        keys("jsonb-key", "jsonb", |tag| format!("jsonb_build_object('k', {tag}, 'q', 'it''s')")),
        keys("range-key", "int4range", |tag| format!("int4range({tag}, {tag} + 5)")),
        keys("bits-key", "bit varying", |tag| format!("{tag}::bit(16)::bit varying")),
        keys("text-key-of-another-collation", "text COLLATE \"C\"", nasty),
        Schema {
            before: "CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
            ..keys("text-key-where-case-is-nothing", "text COLLATE loose", |tag| {
                if tag % 4 == 0 { format!("'Key{tag}'") } else { format!("'kEY{tag}'") }
            })
        },
        keys("float4-key", "real", |tag| format!("{tag}::real / 7")),
        keys("timestamp-key", "timestamp(3)", |tag| match tag {
            14 => "'infinity'".to_owned(),
            114 => "'4713-01-01 00:00:00 BC'".to_owned(),
            _ => format!("'1999-12-31 23:59:59.999'::timestamp + {tag} * interval '61.001 s'"),
        }),
        keys("timetz-key", "time with time zone", |tag| format!("'00:00:00+05:30'::timetz + {tag} * interval '41 s'")),
        keys("name-key", "name", |tag| format!("'n{}'", scattered(tag))),
        keys("money-key", "money", |tag| format!("({tag} * 7.01)::numeric::money")),
        Schema {
            before: "CREATE TYPE place AS (room text, seat integer)",
            ..keys("row-key", "place", |tag| format!("ROW({}, {tag})::place", nasty(tag % 7)))
        },
        keys("multirange-key", "int4multirange", |tag| format!("int4multirange(int4range({tag}, {tag} + 5), int4range(9000, 9001))")),
        Schema {
            // Its columns stand in another order than those of a partition that was a table before.
            name: "attached-partition",
            table: "CREATE TABLE {t} (gone text, {columns}, PRIMARY KEY ({id})) PARTITION BY RANGE ({id});
                    ALTER TABLE {t} DROP COLUMN gone;
                    CREATE TABLE {c1} ({note} text, {edits} integer NOT NULL DEFAULT 0, {tag} integer NOT NULL, lost text,
                        {touched} integer NOT NULL DEFAULT 0, {state} text NOT NULL, {n} integer NOT NULL, {id} integer PRIMARY KEY);
                    ALTER TABLE {c1} DROP COLUMN lost;
                    ALTER TABLE {t} ATTACH PARTITION {c1} FOR VALUES FROM (50) TO (200);
                    CREATE TABLE {c2} PARTITION OF {t} DEFAULT",
            ..PARTITIONED
        },
    ]
}
