//! The API: where it listens, what a client may take, and who may do what.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::controller::{digest, sha256_of, size};
use super::diagnostic::Diagnostic;
use super::model::{Config, Places};
use super::raw;
use super::resolve::{HOW_TO_BE_READ, one_of, relative_to_file, required, text, twice};
use super::section::{Reader, Table};
use tidegate_admin::{Limits, Role, Token};

const TITLE: &str = "[admin]";
const TOKEN_TITLE: &str = "[[admin.token]]";

/// Where the API listens where nothing is said.
pub const DEFAULT_ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9_290);

/// The HTTP API of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// `listen`: the addresses.
    pub listen: Vec<SocketAddr>,
    /// `unix_socket`: a socket in the file system.
    pub unix_socket: Option<PathBuf>,
    /// `[[admin.token]]`, and those of `token_file`
    pub tokens: Vec<Token>,
    /// `token_file`: a file of tokens, a line each.
    pub token_file: Option<PathBuf>,
    /// What a client may take.
    pub limits: Limits,
    /// Where it stands in the file.
    pub places: Places,
}

/// Reads the section; `None` where there is none, and no API then.
pub(super) fn admin<'a>(reader: &mut Reader<'a>, value: Option<Spanned<DeValue<'a>>>) -> Option<Admin> {
    let mut table: Spanned<DeTable<'a>> = reader.table(TITLE, value?)?;
    let tokens = table.get_mut().remove("token");
    let section = reader.section::<raw::Admin>(TITLE, table);
    let raw = &section.values;
    let mut known: Vec<(Token, Places)> = Vec::new();
    for table in tokens.map(|tokens| reader.tables(TOKEN_TITLE, tokens)).unwrap_or_default() {
        let Some((token, places)) = token(reader, table) else { continue };
        if let Some((_, earlier)) = known.iter().find(|(earlier, _)| earlier.name == token.name) {
            let message = twice("token", &token.name, earlier);
            reader.error(places.of("name"), message, Some("give one of them another name".to_owned()));
        }
        known.push((token, places));
    }
    let mut tokens: Vec<Token> = known.into_iter().map(|(token, _)| token).collect();
    let token_file = text(reader, "token_file", raw.token_file.as_ref());
    let token_file = token_file.map(|path| relative_to_file(reader.source.path, &path));
    if let (Some(path), Some(written)) = (&token_file, &raw.token_file) {
        read_token_file(reader, written, path, &mut tokens);
    }
    let unix_socket = text(reader, "unix_socket", raw.unix_socket.as_ref());
    let listen = match &raw.listen {
        Some(addresses) => addresses.get_ref().iter().filter_map(|text| address(reader, text, &tokens)).collect(),
        None if unix_socket.is_some() => Vec::new(),
        None => vec![DEFAULT_ADDRESS],
    };
    if raw.listen.as_ref().is_some_and(|addresses| addresses.get_ref().is_empty()) && unix_socket.is_none() {
        let hint = "name an address or a \"unix_socket\", or leave [admin] out to have no API";
        reader.error(section.places.of("listen"), "\"listen\" names no address", Some(hint.to_owned()));
    }
    Some(Admin {
        listen,
        unix_socket: unix_socket.map(|path| relative_to_file(reader.source.path, &path)),
        tokens,
        token_file,
        limits: Limits {
            body_bytes: size(raw.max_body_bytes.0),
            header_bytes: size(raw.max_header_bytes.0),
            connections: size(raw.max_connections.0),
            header_timeout: Duration::from_millis(raw.header_timeout_ms.0),
            request_timeout: Duration::from_millis(raw.request_timeout_ms.0),
            ..Limits::default()
        },
        places: section.places,
    })
}

/// An address; without any token only this machine may connect.
fn address(reader: &mut Reader<'_>, text: &Spanned<String>, tokens: &[Token]) -> Option<SocketAddr> {
    let Ok(address) = text.get_ref().parse::<SocketAddr>() else {
        let message = format!("\"listen\": {} is not an address", reader.written(text));
        reader.error(reader.at(text), message, Some("write it as \"127.0.0.1:9290\" or \"[::1]:9290\"".to_owned()));
        return None;
    };
    if tokens.is_empty() && !address.ip().is_loopback() {
        let message = format!("\"listen\": {address} is open to other machines, and there is no [[admin.token]]");
        let hint = "`tidegate token new` makes a token; without any, listen on 127.0.0.1 or [::1]";
        reader.error(reader.at(text), message, Some(hint.to_owned()));
        return None;
    }
    Some(address)
}

fn token<'a>(reader: &mut Reader<'a>, table: Table<'a>) -> Option<(Token, Places)> {
    let section = reader.section::<raw::Token>(TOKEN_TITLE, table);
    let raw = &section.values;
    let name = required(reader, &section, "name", raw.name.as_ref());
    let role = required(reader, &section, "role", raw.role.as_ref());
    let role = role.and(raw.role.as_ref()).and_then(|role| one_of(reader, "role", role, &["viewer", "admin"]));
    let sha256 = required(reader, &section, "sha256", raw.sha256.as_ref());
    let hint = "`tidegate token new` prints the lines to write here";
    let sha256 = sha256.and(raw.sha256.as_ref()).and_then(|text| digest(reader, text, hint));
    let role = if role? == "admin" { Role::Admin } else { Role::Viewer };
    Some((Token { name: name?, role, sha256: sha256? }, section.places))
}

/// Adds the tokens of a file. What stands in it is not shown.
fn read_token_file(reader: &mut Reader<'_>, written: &Spanned<String>, path: &Path, tokens: &mut Vec<Token>) {
    let (file, position) = (reader.written(written), reader.at(written));
    // What is no file might never end.
    let read = fs::metadata(path).and_then(|metadata| match metadata.is_file() {
        true => fs::read_to_string(path),
        false => Err(std::io::Error::other("it is not a regular file")),
    });
    let text = match read {
        Ok(text) => text,
        Err(error) => {
            return reader.error(
                position,
                format!("\"token_file\": cannot read {file}: {error}"),
                Some(HOW_TO_BE_READ.to_owned()),
            );
        }
    };
    let lines = text.lines().map(str::trim).enumerate();
    for (index, line) in lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
        let problem = match token_of_line(line) {
            Some(token) if tokens.iter().all(|known| known.name != token.name) => {
                tokens.push(token);
                continue;
            }
            Some(_) => "has the name of another token",
            None => "is not a name, a role and a digest",
        };
        let message = format!("\"token_file\": line {} of {file} {problem}", index + 1);
        let hint = "`tidegate token new` prints the line: name, \"viewer\" or \"admin\", 64 hexadecimal digits";
        reader.error(position, message, Some(hint.to_owned()));
    }
}

fn token_of_line(line: &str) -> Option<Token> {
    let mut words = line.split_whitespace();
    let (name, role, sha256) = (words.next()?, words.next()?, words.next()?);
    let role = [Role::Viewer, Role::Admin].into_iter().find(|known| known.as_str() == role)?;
    let sha256 = sha256_of(sha256)?;
    words.next().is_none().then(|| Token { name: name.to_owned(), role, sha256 })
}

/// Warns of a file of tokens that others on this machine can open.
pub(super) fn open_token_file(config: &Config) -> Option<Diagnostic> {
    use std::os::unix::fs::PermissionsExt;
    let admin = config.admin.as_ref()?;
    let path = admin.token_file.as_ref()?;
    let mode = fs::metadata(path).ok()?.permissions().mode();
    let open_for = match (mode & 0o002 != 0, mode & 0o004 != 0) {
        (true, _) => "write to",
        (false, true) => "read",
        (false, false) => return None,
    };
    let message = format!("\"token_file\": everybody on this machine can {open_for} it");
    let hint = format!("chmod o= {}", path.display());
    Some(config.diagnostic(admin.places.of("token_file"), message, Some(hint)))
}
