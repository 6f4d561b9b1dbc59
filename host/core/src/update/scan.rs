//! Reads SQL that somebody wrote as far as tidegate must: which part of it is code, and which is a comment, a literal
//! or a quoted name. Both databases' rules are followed exactly ("Lexical Structure" in PostgreSQL's documentation,
//! `tokenize.c` of SQLite); what is wrong is left to the database, so that nothing is refused here.

use super::sql::System;

/// A part of a text. The parts of a text, put together, are that text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token<'a> {
    /// What it is.
    pub kind: Kind,
    /// The part itself.
    pub text: &'a str,
    /// Where it begins, in bytes.
    pub start: usize,
}

/// What a part of a text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// White space or a comment.
    Blank,
    /// A string, in whatever quotes, `$$` bodies among them.
    Literal,
    /// A name in quotes.
    Quoted,
    /// A keyword, or a name without quotes.
    Word,
    /// A number.
    Number,
    /// `:name`.
    Placeholder,
    /// A parameter of the database's own: `$1`, and on SQLite `?`, `?1`, `@name`, `$name`.
    Parameter,
    /// A character of code, or `::`.
    Symbol,
}

impl Token<'_> {
    /// Where it ends, in bytes.
    pub fn end(&self) -> usize {
        self.start + self.text.len()
    }

    /// True for this keyword.
    pub fn is(&self, word: &str) -> bool {
        self.kind == Kind::Word && self.text.eq_ignore_ascii_case(word)
    }

    /// True for this character of code.
    pub fn is_symbol(&self, symbol: &str) -> bool {
        self.kind == Kind::Symbol && self.text == symbol
    }

    /// The name that it stands for, as the system understands it; `None` where it is no name.
    pub fn name(&self, system: System) -> Option<String> {
        match (self.kind, system) {
            (Kind::Word, System::Postgres) => Some(self.text.to_lowercase()),
            (Kind::Word, System::Sqlite) => Some(self.text.to_owned()),
            (Kind::Quoted, _) => Some(unquoted(self.text)),
            // SQLite takes a string for a name where nothing else can stand.
            (Kind::Literal, System::Sqlite) => Some(unquoted(self.text)),
            _ => None,
        }
    }
}

/// A name without its quotes.
fn unquoted(text: &str) -> String {
    let Some(quote) = text.chars().next() else { return String::new() };
    if quote == '[' {
        return text.trim_start_matches('[').trim_end_matches(']').to_owned();
    }
    let inner = text.strip_prefix(quote).unwrap_or(text);
    let inner = inner.strip_suffix(quote).unwrap_or(inner);
    inner.replace(&format!("{quote}{quote}"), &quote.to_string())
}

/// The parts of a text.
pub fn tokens(sql: &str, system: System) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut start = 0;
    while let Some(rest) = sql.get(start..).filter(|rest| !rest.is_empty()) {
        let (kind, length) = next(rest, system);
        // A length that ended within a character would be a mistake here: the rest counts as one part then.
        let (text, length) =
            rest.get(..length).filter(|text| !text.is_empty()).map_or((rest, rest.len()), |text| (text, length));
        tokens.push(Token { kind, text, start });
        start += length;
    }
    tokens
}

/// The parts of a text that are code: neither white space nor comments.
pub fn code(sql: &str, system: System) -> Vec<Token<'_>> {
    tokens(sql, system).into_iter().filter(|token| token.kind != Kind::Blank).collect()
}

/// The kind and the bytes of the part that `rest` begins with.
fn next(rest: &str, system: System) -> (Kind, usize) {
    let sqlite = system == System::Sqlite;
    let first = rest.chars().next().unwrap_or_default();
    let second = rest[first.len_utf8()..].chars().next().unwrap_or_default();
    match first {
        _ if first.is_ascii_whitespace() || first == '\u{b}' => {
            (Kind::Blank, run(rest, |c| c.is_ascii_whitespace() || c == '\u{b}'))
        }
        '-' if second == '-' => (Kind::Blank, line_comment(rest, sqlite)),
        '/' if second == '*' => (Kind::Blank, block_comment(rest, !sqlite)),
        '\'' => (Kind::Literal, quoted(rest, '\'', false)),
        '"' => (Kind::Quoted, quoted(rest, '"', false)),
        '`' if sqlite => (Kind::Quoted, quoted(rest, '`', false)),
        '[' if sqlite => (Kind::Quoted, rest.find(']').map_or(rest.len(), |at| at + 1)),
        '$' if !sqlite => dollar(rest),
        '?' if sqlite => (Kind::Parameter, 1 + run(&rest[1..], |c| c.is_ascii_digit())),
        '@' | '$' | '#' if sqlite && is_word(second) => (Kind::Parameter, 1 + run(&rest[1..], is_word)),
        ':' if second == ':' => (Kind::Symbol, 2),
        // SQLite knows :1 as well; in PostgreSQL it is the end of a slice.
        ':' if starts_word(second) || (sqlite && is_word(second)) => (Kind::Placeholder, 1 + run(&rest[1..], is_word)),
        _ if first.is_ascii_digit() => (Kind::Number, run(rest, |c| c.is_ascii_alphanumeric() || c == '_' || c == '.')),
        _ if starts_word(first) => word(rest, sqlite),
        _ => (Kind::Symbol, first.len_utf8()),
    }
}

/// The bytes at the beginning of `rest` whose characters all satisfy `belongs`.
fn run(rest: &str, belongs: impl Fn(char) -> bool) -> usize {
    rest.find(|c| !belongs(c)).unwrap_or(rest.len())
}

fn starts_word(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_' || !c.is_ascii()
}

fn is_word(c: char) -> bool {
    starts_word(c) || c.is_ascii_digit() || c == '$'
}

fn line_comment(rest: &str, sqlite: bool) -> usize {
    rest.find(|c| c == '\n' || (c == '\r' && !sqlite)).unwrap_or(rest.len())
}

/// The bytes of a comment; PostgreSQL's may hold others.
fn block_comment(rest: &str, nested: bool) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    loop {
        let ahead = rest.get(at..).unwrap_or_default();
        let Some(found) = ahead.find(['/', '*']) else { return rest.len() };
        at += found;
        if rest[at..].starts_with("/*") && (nested || depth == 0) {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") && depth > 0 {
            depth -= 1;
            at += 2;
        } else {
            at += 1;
        }
        if depth == 0 {
            return at;
        }
    }
}

/// The bytes of a text in quotes: a quote that is doubled does not end it, nor one behind a backslash where those count.
fn quoted(rest: &str, quote: char, backslashes: bool) -> usize {
    let mut characters = rest.char_indices().skip(1).peekable();
    while let Some((at, c)) = characters.next() {
        if backslashes && c == '\\' {
            characters.next();
        } else if c == quote && characters.next_if(|(_, next)| *next == quote).is_none() {
            return at + c.len_utf8();
        }
    }
    rest.len()
}

/// What begins with `$` on PostgreSQL: a body between `$tag$` and `$tag$`, or a parameter.
fn dollar(rest: &str) -> (Kind, usize) {
    let behind = &rest[1..];
    let digits = run(behind, |c| c.is_ascii_digit());
    if digits > 0 {
        return (Kind::Parameter, 1 + digits);
    }
    let tag = run(behind, |c| is_word(c) && c != '$');
    if !behind[tag..].starts_with('$') {
        return (Kind::Symbol, 1);
    }
    let opening = tag + 2;
    let closing = rest[opening..].find(&rest[..opening]);
    (Kind::Literal, closing.map_or(rest.len(), |at| opening + at + opening))
}

/// A word, or the literal that it introduces: `E'…'`, whose backslashes count.
fn word(rest: &str, sqlite: bool) -> (Kind, usize) {
    let length = run(rest, is_word);
    match (&rest[..length], rest[length..].starts_with('\'')) {
        ("e" | "E", true) if !sqlite => (Kind::Literal, escaped(rest, length)),
        _ => (Kind::Word, length),
    }
}

/// The bytes of an `E'…'` whose quote opens at `at`: after a line break, another pair of quotes goes on with it.
fn escaped(rest: &str, at: usize) -> usize {
    let end = at + quoted(&rest[at..], '\'', true);
    let gap = run(&rest[end..], |c| c.is_ascii_whitespace());
    let goes_on = rest[end..end + gap].contains(['\n', '\r']) && rest[end + gap..].starts_with('\'');
    if goes_on { escaped(rest, end + gap) } else { end }
}

/// The statements of a script, each with what stands before it and without the semicolon behind it; what holds no code
/// is left out. The body of a trigger (SQLite) or of a function in standard SQL (PostgreSQL) is part of its statement.
pub fn statements(sql: &str, system: System) -> Vec<&str> {
    let (mut statements, mut start) = (Vec::new(), 0);
    let mut state = Body::default();
    let mut holds_code = false;
    for token in code(sql, system) {
        if token.is_symbol(";") && !state.open {
            if holds_code {
                statements.push(sql[start..token.start].trim());
            }
            (start, holds_code, state) = (token.end(), false, Body::default());
            continue;
        }
        holds_code = true;
        state.see(&token, system);
    }
    if holds_code {
        statements.push(sql[start..].trim());
    }
    statements
}

/// Whether a statement has a body of statements, and is in it.
#[derive(Default)]
struct Body {
    seen: usize,
    creates: bool,
    may_have: bool,
    begun: bool,
    open: bool,
    cases: usize,
}

impl Body {
    fn see(&mut self, token: &Token<'_>, system: System) {
        self.creates |= self.seen == 0 && token.is("create");
        self.seen += 1;
        let bodied = match system {
            System::Sqlite => token.is("trigger"),
            System::Postgres => token.is("function") || token.is("procedure"),
        };
        self.may_have |= self.creates && bodied;
        if self.open {
            match () {
                () if token.is("case") => self.cases += 1,
                () if token.is("end") && self.cases > 0 => self.cases -= 1,
                () if token.is("end") => self.open = false,
                () => {}
            }
        } else if self.may_have {
            let atomic = token.is("atomic") && self.begun;
            self.begun = token.is("begin");
            self.open = match system {
                System::Sqlite => self.begun,
                System::Postgres => atomic,
            };
        }
    }
}

/// A block of PL/pgSQL (from its BEGIN on, without its END) that ends with an error of this code, so that nothing it did
/// stays.
pub fn do_block(block: &str, code: &str) -> String {
    // A tag that the text does not contain.
    let mut tag = "$tidegate$".to_owned();
    while block.contains(tag.trim_end_matches('$')) {
        tag.insert(1, '_');
    }
    format!("DO {tag} {block}\nRAISE EXCEPTION 'rehearsed' USING ERRCODE = '{code}'; END {tag}")
}

/// The parts between the commas of a CREATE TABLE's parentheses: its columns, and its constraints.
pub fn columns<'a, 'b>(code: &'a [Token<'b>]) -> Vec<&'a [Token<'b>]> {
    let (mut found, mut depth, mut start) = (Vec::new(), 0_usize, 0);
    for (at, token) in code.iter().enumerate() {
        let ends = depth == 1 && (token.is_symbol(",") || token.is_symbol(")"));
        if ends {
            found.push(code.get(start..at).unwrap_or_default());
        }
        if token.is_symbol("(") {
            depth += 1;
        } else if token.is_symbol(")") {
            depth = depth.saturating_sub(1);
        }
        if ends || depth == 1 && token.is_symbol("(") {
            start = at + 1;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOTH: [System; 2] = [System::Sqlite, System::Postgres];

    fn of(kind: Kind, sql: &str, system: System) -> Vec<&str> {
        tokens(sql, system).into_iter().filter(|token| token.kind == kind).map(|token| token.text).collect()
    }

    #[test]
    fn placeholders_are_found_in_code_and_nowhere_else() {
        let on_both: &[(&str, &[&str])] = &[
            ("a > :after AND a<=:upto", &[":after", ":upto"]),
            ("':after' \":after\" -- :after\n/* :after */ :upto", &[":upto"]),
            ("'it''s :after', \"a\"\":after\" :upto", &[":upto"]),
            ("x::after, x ::text, : after", &[]),
            ("-- it's\n:after -- ' :upto", &[":after"]),
            ("/* ' */ :after /* ' */", &[":after"]),
            (":after_1,:after_2):batch_size;", &[":after_1", ":after_2", ":batch_size"]),
            (":aftér 'unterminated :upto", &[":aftér"]),
            ("x'00' :after /* unterminated :upto", &[":after"]),
        ];
        let on_postgres: &[(&str, &[&str])] = &[
            ("$$ :after $$ :upto", &[":upto"]),
            ("$a$ $$ :after $b$ $a$ :upto", &[":upto"]),
            ("a$$ :after $$", &[":after"]),
            ("E'it\\'s :after' :upto", &[":upto"]),
            ("'a\\' :after", &[":after"]),
            ("E'a''b\\\\' :after", &[":after"]),
            ("name_e':after'", &[]),
            ("U&'\\0441 :after' U&\":after\" :upto", &[":upto"]),
            ("/* /* */ :after */ :upto", &[":upto"]),
            ("a[1:2] f(x := :after)", &[":after"]),
            ("-- a\r:after", &[":after"]),
            ("$é$ :after $é$ :upto", &[":upto"]),
        ];
        let on_sqlite: &[(&str, &[&str])] = &[
            ("[a :after] `b :after` :upto", &[":upto"]),
            ("/* /* */ :after", &[":after"]),
            ("'a\\' :after", &[":after"]),
            ("e'a\\' :after", &[":after"]),
            ("-- a\r:after", &[]),
        ];
        for system in BOTH {
            let own = if system == System::Sqlite { on_sqlite } else { on_postgres };
            for (sql, expected) in on_both.iter().chain(own) {
                assert_eq!(of(Kind::Placeholder, sql, system), *expected, "{sql} on {system}");
            }
        }
    }

    #[test]
    fn parameters_of_the_database_itself_are_told_from_operators() {
        let postgres = "a ? 'b' AND c @> $1 AND d ?| e AND $$ $2 $$ = $22::text";
        assert_eq!(of(Kind::Parameter, postgres, System::Postgres), ["$1", "$22"]);
        let sqlite = "a = ? AND b = ?12 AND c = @c AND d = $d AND '?' = \"@e\"";
        assert_eq!(of(Kind::Parameter, sqlite, System::Sqlite), ["?", "?12", "@c", "$d"]);
    }

    #[test]
    fn a_script_is_taken_apart_at_the_semicolons_of_its_code() {
        let trigger = "CREATE TRIGGER t AFTER INSERT ON a BEGIN SELECT CASE WHEN 1 THEN 2 END; DELETE FROM b; END";
        let function = "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT CASE WHEN true THEN 2 END; END";
        let body = "CREATE FUNCTION f() RETURNS int AS $$ BEGIN; RETURN 1; END $$";
        let mut cases = vec![(System::Sqlite, trigger), (System::Postgres, function), (System::Postgres, body)];
        cases.extend(BOTH.map(|system| (system, "SELECT ';', \"a;\" /* ; */ -- ;")));
        for (system, whole) in cases {
            let script = format!(" {whole}\n; ;; -- nothing;\n; DROP TABLE a ;");
            assert_eq!(statements(&script, system), [whole, "DROP TABLE a"]);
        }
        assert_eq!(statements("BEGIN; SELECT 1; END", System::Sqlite), ["BEGIN", "SELECT 1", "END"]);
    }

    #[test]
    fn a_name_is_what_the_database_makes_of_it() {
        let name = |sql, system| tokens(sql, system)[0].name(system);
        assert_eq!(name("RooM", System::Postgres).as_deref(), Some("room"));
        assert_eq!(name("\"Ro\"\"oM\"", System::Postgres).as_deref(), Some("Ro\"oM"));
        assert_eq!(name("[Ro]", System::Sqlite).as_deref(), Some("Ro"));
        assert_eq!(name("'Ro'", System::Sqlite).as_deref(), Some("Ro"));
        assert_eq!(name("'Ro'", System::Postgres), None);
    }

    /// Texts made of what is hard to tell apart.
    fn soup() -> impl Strategy<Value = String> {
        let pieces = prop::sample::select(vec![
            "'",
            "''",
            "\"",
            "`",
            "[",
            "]",
            "$",
            "$$",
            "$a$",
            "--",
            "/*",
            "*/",
            "\n",
            "\r",
            "\\",
            "E'",
            "e",
            ":",
            "::",
            ":after",
            "?",
            "@",
            "1",
            "1.5e3",
            " ",
            "é",
            "🌊",
            ";",
            "begin",
            "end",
            "case",
            "create trigger",
            "x",
        ]);
        prop::collection::vec(pieces, 0..30).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn the_parts_of_any_text_are_that_text(sql in prop_oneof![soup(), ".*"]) {
            for system in BOTH {
                let parts = tokens(&sql, system);
                let together: String = parts.iter().map(|token| token.text).collect();
                prop_assert_eq!(&together, &sql);
                prop_assert!(parts.iter().all(|token| !token.text.is_empty() && sql[token.start..].starts_with(token.text)));
            }
        }

        #[test]
        fn what_is_hidden_in_a_literal_stays_hidden(inside in soup()) {
            let hidden = [
                (System::Postgres, format!("'{}'", inside.replace('\'', "''"))),
                (System::Postgres, format!("E'{}'", inside.replace('\\', "\\\\").replace('\'', "\\'"))),
                (System::Postgres, format!("$hide${inside}$hide$")),
                (System::Postgres, format!("\"{}\"", inside.replace('"', "\"\""))),
                (System::Sqlite, format!("'{}'", inside.replace('\'', "''"))),
                (System::Sqlite, format!("\"{}\"", inside.replace('"', "\"\""))),
                (System::Sqlite, format!("/*{}*/", inside.replace("*/", "").replace('*', ""))),
            ];
            for (system, text) in hidden {
                let sql = format!("SELECT {text} :seen;");
                prop_assert_eq!(of(Kind::Placeholder, &sql, system), vec![":seen"], "{}", sql);
                prop_assert_eq!(statements(&sql, system).len(), 1, "{}", sql);
            }
        }
    }
}
