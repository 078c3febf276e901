//! `[[trunk]]`: what a carrier's connection may say, and what a preset says for it.

use std::path::PathBuf;

use trunkline_edge_api::SourceNetworks;
use trunkline_edge_api::config::{KeyDefault, KeySpec, Section, SectionSpec, Value};
use trunkline_sip::offer_answer::SrtpPolicy;

use super::{
    DTMF, Names, SRTP, SecretFile, TENANT_REFERENCE, TRANSCODE, interface, is_host, network,
    networks, parsed, party_audio, take, tenant_reference,
};
use crate::site::{InterfaceName, Name, Trunk};
use crate::trunk::destination::{DESTINATIONS_MAX, Destination};
use crate::trunk::number::{DialPlan, NumberFormat, NumberStyle};
use crate::trunk::preset::{Defaults, Preset};
use crate::trunk::registration::EXPIRES_DEFAULT_SECS;
use crate::trunk::settings::{
    CustomHeader, HEADERS_MAX, IdentityHeader, Login, RegisterSettings, Secret, TrunkSettings,
    TrunkTransport, is_custom_header,
};

/// Source networks and names of one trunk.
const SOURCES_MAX: usize = 256;

/// Characters of a custom header's value.
const HEADER_VALUE_CHARS_MAX: usize = 256;

const fn absent(meaning: &'static str, example: &'static str) -> KeyDefault {
    KeyDefault::Absent { meaning, example }
}

pub(super) const COUNTRY_CODE: KeySpec = KeySpec {
    name: "country_code",
    form: "1 to 3 digits, e.g. \"44\"",
    default: absent("only numbers with a country code are understood", "\"44\""),
    effect: "The country that national numbers belong to.",
};

pub(super) const NATIONAL_PREFIX: KeySpec = KeySpec {
    name: "national_prefix",
    form: "up to 3 digits",
    default: absent("none with country_code \"1\", else \"0\"", "\"0\""),
    effect: "What leads a national number.",
};

pub(super) const INTERNATIONAL_PREFIX: KeySpec = KeySpec {
    name: "international_prefix",
    form: "up to 4 digits",
    default: absent("\"011\" with country_code \"1\", else \"00\"", "\"00\""),
    effect: "What leads a number of another country.",
};

const PREFIX_FORM: &str = "up to 16 of digits, '+', '*' and '#'";

pub(super) static TRUNK: SectionSpec = SectionSpec {
    name: "trunk",
    effect: "A carrier's connection.",
    keys: &[
        KeySpec {
            name: "name",
            form: Name::FORM,
            default: KeyDefault::Required {
                example: "\"carrier-1\"",
            },
            effect: "Its name, also the trunk label of metrics.",
        },
        TENANT_REFERENCE,
        KeySpec {
            name: "preset",
            form: Preset::FORM,
            default: absent("none", "\"twilio\""),
            effect: "A carrier whose sources, destinations, media networks, transport, SRTP and \
                     calls per second are known. Every key stated here wins over it.",
        },
        KeySpec {
            name: "sources",
            form: "a list of 1 to 256 networks or addresses whose host bits are zero, or host \
                   names, e.g. [\"192.0.2.0/28\", \"2001:db8::/64\", \"sip.example.com\"]",
            default: absent(
                "the preset's; needed where there is none and the trunk does not register",
                "[\"192.0.2.0/28\"]",
            ),
            effect: "Where its SIP requests come from. The longest match decides. A name is \
                     resolved again and again, as long as DNS says.",
        },
        KeySpec {
            name: "destinations",
            form: "a list of 1 to 8 hosts, e.g. [\"sip.example.com\", \
                   \"192.0.2.10:5080;priority=2;weight=10\"]",
            default: absent(
                "the preset's; without any the trunk only delivers calls",
                "[\"sip.example.com\"]",
            ),
            effect: "Where calls to it go: the lowest priority first, shared by weight within \
                     one. The host is that of the request URI.",
        },
        KeySpec {
            name: "transport",
            form: TrunkTransport::FORM,
            default: absent("the preset's, else \"udp\"", "\"tls\""),
            effect: "What it is spoken to over.",
        },
        KeySpec {
            name: "user",
            form: "1 to 128 printable characters",
            default: absent("none: it knows us by our address", "\"acme\""),
            effect: "User name for its digest challenges.",
        },
        KeySpec {
            name: "password_file",
            form: "the path of a file, relative to the site file",
            default: absent("none", "\"secrets/carrier-1\""),
            effect: "File with the password on its only line. It goes with user.",
        },
        KeySpec {
            name: "register",
            form: "true or false",
            default: KeyDefault::Literal("false"),
            effect: "Whether we register as user at its first destination. Calls on that flow are \
                     the trunk's.",
        },
        KeySpec {
            name: "register_secs",
            form: "a number of seconds from 60 to 86400",
            default: KeyDefault::Literal("600"),
            effect: "How long a registration is to last.",
        },
        KeySpec {
            name: "numbers_out",
            form: NumberStyle::FORM,
            default: KeyDefault::Literal("\"+e164\""),
            effect: "How it wants numbers written.",
        },
        KeySpec {
            name: "numbers_in",
            form: NumberStyle::FORM,
            default: KeyDefault::Literal("\"+e164\""),
            effect: "How it writes them; with a country code it may leave out the '+'.",
        },
        COUNTRY_CODE,
        NATIONAL_PREFIX,
        INTERNATIONAL_PREFIX,
        KeySpec {
            name: "strip_out",
            form: PREFIX_FORM,
            default: KeyDefault::Literal("\"\""),
            effect: "Taken off the front of a called number that leaves.",
        },
        KeySpec {
            name: "add_out",
            form: PREFIX_FORM,
            default: KeyDefault::Literal("\"\""),
            effect: "Then put in front of it.",
        },
        KeySpec {
            name: "tech_prefix",
            form: PREFIX_FORM,
            default: KeyDefault::Literal("\"\""),
            effect: "Put in front of all that: how some carriers know the account.",
        },
        KeySpec {
            name: "strip_in",
            form: PREFIX_FORM,
            default: KeyDefault::Literal("\"\""),
            effect: "Taken off the front of a number that arrives, before it is read.",
        },
        KeySpec {
            name: "add_in",
            form: PREFIX_FORM,
            default: KeyDefault::Literal("\"\""),
            effect: "Then put in front of it.",
        },
        KeySpec {
            name: "headers",
            form: "a list of up to 8 headers, e.g. [\"P-Charge-Info: <sip:+442071838750@example.com>\"]",
            default: KeyDefault::Literal("[]"),
            effect: "What every INVITE to it carries.",
        },
        KeySpec {
            name: "header_files",
            form: "a list of up to 8 headers whose values are paths of files, e.g. \
                   [\"X-Telnyx-Token: secrets/token\"]",
            default: KeyDefault::Literal("[]"),
            effect: "The same, for values that are secrets: each is the only line of a file named \
                     relative to the site file.",
        },
        KeySpec {
            name: "cps",
            form: "a number from 0 to 1000",
            default: absent("the preset's, else 0: any number", "10"),
            effect: "Calls per second that it takes. Calls wait up to four seconds for their turn.",
        },
        KeySpec {
            name: "channels_max",
            form: "a number from 1 to 100000",
            default: absent("no limit", "30"),
            effect: "Calls at one time, both ways. Calls beyond it get 503, or the next trunk.",
        },
        KeySpec {
            name: "options_secs",
            form: "a number of seconds from 0 to 3600",
            default: KeyDefault::Literal("30"),
            effect: "Between two OPTIONS to each destination; 0: never. After three failures in a \
                     row it gets no calls until it answers twice.",
        },
        KeySpec {
            name: "from_domain",
            form: "a host name or address",
            default: absent(
                "the destination's host where user is stated, else our own address",
                "\"sip.example.com\"",
            ),
            effect: "Host part of From and of asserted identities.",
        },
        KeySpec {
            name: "identity",
            form: IdentityHeader::FORM,
            default: KeyDefault::Literal("\"pai\""),
            effect: "How it is told who calls: P-Asserted-Identity, to carriers that keep a \
                     withheld number to themselves; P-Preferred-Identity; or From alone.",
        },
        SRTP_OF_TRUNK,
        KeySpec {
            name: "media_from",
            form: "a list of 1 to 8 networks or addresses whose host bits are zero, none of \
                   which holds every address",
            default: absent(
                "the preset's, else only the address in its SDP",
                "[\"198.51.100.0/24\"]",
            ),
            effect: "Where its media may come from, any port, beside the address in its SDP: for \
                     carriers that send from elsewhere than they listen. Whoever can send from \
                     there is heard.",
        },
        KeySpec {
            name: "media",
            form: InterfaceName::FORM,
            default: absent(
                "the first media address of the family that its offer names",
                "\"outside\"",
            ),
            effect: "Our media address towards it. Offers of the other family are then refused.",
        },
        TRANSCODE,
        DTMF,
    ],
};

const SRTP_OF_TRUNK: KeySpec = KeySpec {
    default: absent("the preset's, else \"off\"", "\"required\""),
    ..SRTP
};

/// A `[[trunk]]` whose secrets have not been read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TrunkDocument {
    trunk: Trunk,
    login: Option<(String, SecretFile)>,
    header_files: Vec<(String, SecretFile)>,
}

impl TrunkDocument {
    /// Reads the secrets. The error is that of `secret`.
    pub(super) fn resolve<E>(
        self,
        secret: impl Fn(&SecretFile) -> Result<String, E>,
    ) -> Result<Trunk, E> {
        let mut trunk = self.trunk;
        if let Some((user, file)) = &self.login {
            let password = Secret(secret(file)?);
            let user = user.clone();
            trunk.settings.login = Some(Login { user, password });
        }
        for (name, file) in &self.header_files {
            trunk.settings.headers.push(CustomHeader {
                name: name.clone(),
                value: Secret(secret(file)?),
            });
        }
        Ok(trunk)
    }
}

/// A source as the file states it.
enum Source {
    Network(ipnet::IpNet),
    Name(String),
}

pub(super) fn read_trunk(section: &Section<'_>, names: &mut Names) -> Option<TrunkDocument> {
    let name = section.value("name", parsed::<Name>);
    let tenant = tenant_reference(section, names);
    let preset = section.optional("preset", parsed::<Preset>);
    let defaults = preset.flatten().map(Preset::defaults);
    let sources = section.optional("sources", sources);
    let destinations = section.optional("destinations", destinations);
    let transport = section.optional("transport", parsed::<TrunkTransport>);
    let srtp = section.optional("srtp", parsed::<SrtpPolicy>);
    let media_from = section.optional("media_from", media_from);
    let cps = section.optional("cps", |value| value.as_number(0..=1_000));
    let media = interface(section, TRUNK.name, names);
    let audio = party_audio(section);
    let login = login(section);
    let headers = headers(section);
    let header_files = header_files(section);
    let settings = settings(section);
    if let Some(name) = &name {
        take(section, "name", &mut names.trunks, name.clone());
    }
    let (name, tenant) = (name?, tenant?);

    let (preset, defaults) = (preset?, defaults.unwrap_or(NO_PRESET));
    let mut settings = settings?;
    settings.destinations = destinations?.unwrap_or_else(|| hosts(defaults.destinations));
    settings.transport = transport?.unwrap_or(defaults.transport);
    settings.cps = cps?.unwrap_or(defaults.cps);
    settings.headers = headers?;
    let (mut networks, stated_names) = split(sources?, &defaults);
    settings.source_names = stated_names;
    if preset.is_some_and(Preset::delivers_from_its_destinations) && networks.is_empty() {
        for destination in &settings.destinations {
            match destination.address() {
                Some(address) => networks.push(address.into()),
                None => settings.source_names.push(destination.host.clone()),
            }
        }
        settings.source_names.dedup();
    }
    let calls_out = !settings.destinations.is_empty();
    names
        .outbound_trunks
        .insert(name.clone(), (tenant.clone(), calls_out));
    let login = login?;
    check(section, &settings, &networks, login.is_some());
    for &source in &networks {
        take(section, "sources", &mut names.sources, source);
    }
    let trunk = Trunk {
        name,
        tenant,
        sources: networks,
        srtp: srtp?.unwrap_or(defaults.srtp),
        media_from: match media_from? {
            Some(networks) => networks,
            None => defaults
                .media_from
                .iter()
                .filter_map(|text| network(text))
                .collect(),
        },
        media: media?,
        audio: audio?,
        settings,
    };
    Some(TrunkDocument {
        trunk,
        login,
        header_files: header_files?,
    })
}

const NO_PRESET: Defaults = Defaults {
    sources: &[],
    media_from: &[],
    destinations: &[],
    source_names: &[],
    transport: TrunkTransport::Udp,
    srtp: SrtpPolicy::Off,
    cps: 0,
};

/// What is in itself sound and does not go together.
fn check(
    section: &Section<'_>,
    settings: &TrunkSettings,
    networks: &[ipnet::IpNet],
    has_login: bool,
) {
    if settings.register.is_some() {
        if settings.destinations.is_empty() {
            section.reject("register", "there is no destination to register at");
        }
        if !has_login {
            section.reject("register", "registering needs user and password_file");
        }
    } else if networks.is_empty() && settings.source_names.is_empty() {
        let problem = "needed: the networks that its requests come from";
        section.reject("sources", problem);
    }
}

/// Everything whose default does not hang on the preset.
fn settings(section: &Section<'_>) -> Option<TrunkSettings> {
    let register = section.value("register", |value| value.as_bool());
    let expires_secs = section.value("register_secs", |value| {
        value.as_number(EXPIRES_DEFAULT_SECS / 10..=86_400)
    });
    let plan = dial_plan(section);
    let style_out = section.value("numbers_out", parsed::<NumberStyle>);
    let style_in = section.value("numbers_in", parsed::<NumberStyle>);
    let [strip_out, add_out, tech_prefix, strip_in, add_in] =
        ["strip_out", "add_out", "tech_prefix", "strip_in", "add_in"]
            .map(|key| section.value(key, prefix));
    let channels_max = section.optional("channels_max", |value| value.as_number(1..=100_000));
    let options_secs = section.value("options_secs", |value| value.as_number(0..=3_600));
    let from_domain = section.optional("from_domain", |value| {
        let text = value.as_str()?;
        is_host(text).then(|| text.to_owned())
    });
    let identity = section.value("identity", parsed::<IdentityHeader>);
    let expires_secs = expires_secs?;
    Some(TrunkSettings {
        register: register?.then_some(RegisterSettings { expires_secs }),
        plan: plan?,
        numbers_out: NumberFormat {
            style: style_out?,
            strip: strip_out?,
            add: format!("{}{}", tech_prefix?, add_out?),
        },
        numbers_in: NumberFormat {
            style: style_in?,
            strip: strip_in?,
            add: add_in?,
        },
        channels_max: channels_max?,
        options_secs: options_secs?,
        from_domain: from_domain?,
        identity: identity?,
        ..TrunkSettings::default()
    })
}

/// `country_code` and the two prefixes, of a trunk or a tenant.
pub(super) fn dial_plan(section: &Section<'_>) -> Option<DialPlan> {
    let digits = |min: usize, max: usize| {
        move |value: Value<'_>| {
            let text = value.as_str()?;
            let fits =
                (min..=max).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
            fits.then(|| text.to_owned())
        }
    };
    let country_code = section.optional("country_code", digits(1, 3));
    let national_prefix = section.optional("national_prefix", digits(0, 3));
    let international_prefix = section.optional("international_prefix", digits(0, 4));
    Some(DialPlan {
        country_code: country_code?,
        national_prefix: national_prefix?,
        international_prefix: international_prefix?,
    })
}

fn login(section: &Section<'_>) -> Option<Option<(String, SecretFile)>> {
    let user = section.optional("user", |value| {
        let text = value.as_str()?;
        let fits = (1..=128).contains(&text.len()) && !text.chars().any(char::is_control);
        fits.then(|| text.to_owned())
    });
    let file = section.optional("password_file", path);
    match (user?, file?) {
        (None, None) => Some(None),
        (Some(user), Some(path)) => {
            let file = SecretFile {
                section: TRUNK.name,
                key: "password_file",
                line: section.line_of("password_file"),
                path,
            };
            Some(Some((user, file)))
        }
        (Some(_), None) => {
            section.reject("user", "it needs a password_file");
            None
        }
        (None, Some(_)) => {
            section.reject("password_file", "it needs a user");
            None
        }
    }
}

pub(super) fn path(value: Value<'_>) -> Option<PathBuf> {
    let path = value.as_str().filter(|path| !path.is_empty())?;
    Some(PathBuf::from(path))
}

fn header_line(value: Value<'_>) -> Result<(String, String), String> {
    let text = value.as_str().unwrap_or_default();
    let (name, rest) = text
        .split_once(':')
        .ok_or("expected a name, a colon and a value")?;
    let (name, rest) = (name.trim(), rest.trim());
    if !is_custom_header(name) {
        return Err("this header cannot be stated here".to_owned());
    }
    let fits = (1..=HEADER_VALUE_CHARS_MAX).contains(&rest.chars().count())
        && !rest.chars().any(char::is_control);
    if !fits {
        return Err("expected a value of 1 to 256 characters on one line".to_owned());
    }
    Ok((name.to_owned(), rest.to_owned()))
}

fn headers(section: &Section<'_>) -> Option<Vec<CustomHeader>> {
    let headers = section.list("headers", 0..=HEADERS_MAX, header_line)?;
    let header = |(name, value)| CustomHeader {
        name,
        value: Secret(value),
    };
    Some(headers.into_iter().map(header).collect())
}

fn header_files(section: &Section<'_>) -> Option<Vec<(String, SecretFile)>> {
    let headers = section.list("header_files", 0..=HEADERS_MAX, header_line)?;
    let line = section.line_of("header_files");
    let file = |(name, path): (String, String)| {
        let file = SecretFile {
            section: TRUNK.name,
            key: "header_files",
            line,
            path: PathBuf::from(path),
        };
        (name, file)
    };
    Some(headers.into_iter().map(file).collect())
}

fn prefix(value: Value<'_>) -> Option<String> {
    let text = value.as_str()?;
    let fits = text.len() <= 16
        && text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || b"+*#".contains(&byte));
    fits.then(|| text.to_owned())
}

fn destinations(value: Value<'_>) -> Option<Vec<Destination>> {
    let destinations = value
        .as_list()?
        .map(parsed::<Destination>)
        .collect::<Option<Vec<_>>>()?;
    (1..=DESTINATIONS_MAX)
        .contains(&destinations.len())
        .then_some(destinations)
}

fn hosts(texts: &[&str]) -> Vec<Destination> {
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}

fn sources(value: Value<'_>) -> Option<Vec<Source>> {
    let source = |item: Value<'_>| {
        let text = item.as_str()?;
        if let Some(network) = network(text) {
            return Some(Source::Network(network));
        }
        // What looks like a misspelt network must not pass for a name.
        let is_name = is_host(text) && text.bytes().any(|byte| byte.is_ascii_alphabetic());
        is_name.then(|| Source::Name(text.to_owned()))
    };
    let sources = value.as_list()?.map(source).collect::<Option<Vec<_>>>()?;
    (1..=SOURCES_MAX)
        .contains(&sources.len())
        .then_some(sources)
}

fn media_from(value: Value<'_>) -> Option<Vec<ipnet::IpNet>> {
    let networks = networks(value, SourceNetworks::LEN_MAX)?;
    let is_bounded = networks.iter().all(|network| network.prefix_len() > 0);
    is_bounded.then_some(networks)
}

fn split(stated: Option<Vec<Source>>, defaults: &Defaults) -> (Vec<ipnet::IpNet>, Vec<String>) {
    let Some(stated) = stated else {
        return (
            defaults
                .sources
                .iter()
                .filter_map(|text| network(text))
                .collect(),
            defaults
                .source_names
                .iter()
                .map(|&name| name.to_owned())
                .collect(),
        );
    };
    let (mut networks, mut names) = (Vec::new(), Vec::new());
    for source in stated {
        match source {
            Source::Network(network) => networks.push(network),
            Source::Name(name) => names.push(name),
        }
    }
    (networks, names)
}
