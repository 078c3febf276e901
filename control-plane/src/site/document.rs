//! The site file as it is written: its sections, and the rules across them.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use ipnet::IpNet;
use trunkline_edge_api::config::{
    ConfigError, Document, KeyDefault, KeySpec, MediaAddress, Problem, Reader, Section,
    SectionSpec, Value,
};

use trunkline_sip::offer_answer::{SrtpPolicy, Transcode};

use super::{
    Availability, Conference, Did, E164, Extension, ForwardEvent, Forwards, Group, InterfaceName,
    Member, Name, Route, SipUser, Site, Strategy, Tenant,
};
use crate::call::Pin;
use crate::credential::Credential;
use crate::party::{Dtmf, EarlyMedia, PartyAudio, RecordCalls};
use crate::trunk::MemberOutbound;
use crate::trunk::destination::is_host;

mod outbound;
mod trunk;

use outbound::{
    CALLER_ID, CALLER_IDS, CALLS_PER_DAY, CHANNELS_MAX, DURATION_MAX, EMERGENCY, MEMBER_PREFIXES,
    MINUTES_PER_DAY, ROUTE, TENANT_PREFIXES, read_member_outbound, read_route,
    read_tenant_outbound,
};
use trunk::{
    COUNTRY_CODE, INTERNATIONAL_PREFIX, NATIONAL_PREFIX, TRUNK, TrunkDocument, read_trunk,
};

/// Characters of a display name.
const DISPLAY_NAME_CHARS_MAX: usize = 80;

const TENANT_REFERENCE: KeySpec = KeySpec {
    name: "tenant",
    form: Name::FORM,
    default: KeyDefault::Required {
        example: "\"acme\"",
    },
    effect: "The tenant it belongs to.",
};

const SRTP: KeySpec = KeySpec {
    name: "srtp",
    form: SrtpPolicy::FORM,
    default: KeyDefault::Literal("\"off\""),
    effect: "SRTP with keys in SDP: never; offered first and plain RTP where it is refused; or \
             plain RTP refused with 488.",
};

const TRANSCODE: KeySpec = KeySpec {
    name: "transcode",
    form: Transcode::FORM,
    default: KeyDefault::Literal("\"when_needed\""),
    effect: "Whether its audio may be converted where the other side has no common codec. With \
             \"off\" such calls are refused with 488.",
};

const DTMF: KeySpec = KeySpec {
    name: "dtmf",
    form: Dtmf::FORM,
    default: KeyDefault::Literal("\"rfc4733\""),
    effect: "How digits travel to and from it: as telephone events, as tones in the audio, or as \
             SIP INFO requests. What the other side uses is converted.",
};

const RECORD: KeySpec = KeySpec {
    name: "record",
    form: RecordCalls::FORM,
    default: KeyDefault::Literal("\"never\""),
    effect: "Whether its calls are recorded, from the answer on, into [media] recordings_dir.",
};

static TENANT: SectionSpec = SectionSpec {
    name: "tenant",
    effect: "A customer.",
    keys: &[
        KeySpec {
            name: "name",
            form: Name::FORM,
            default: KeyDefault::Required {
                example: "\"acme\"",
            },
            effect: "Its name.",
        },
        KeySpec {
            name: "media",
            form: InterfaceName::FORM,
            default: KeyDefault::Absent {
                meaning: "the first media address of the family that fits",
                example: "\"inside\"",
            },
            effect: "Our media address towards those of its members that name none.",
        },
        KeySpec {
            name: "hold_music",
            form: FILE_FORM,
            default: KeyDefault::Absent {
                meaning: "[media] hold_music",
                example: "\"acme/hold.wav\"",
            },
            effect: "What its callers and members hear while the other side holds.",
        },
        TENANT_PREFIXES,
        CALLS_PER_DAY,
        MINUTES_PER_DAY,
        DURATION_MAX,
        COUNTRY_CODE,
        NATIONAL_PREFIX,
        INTERNATIONAL_PREFIX,
        EMERGENCY,
        CALLER_ID,
        CHANNELS_MAX,
        KeySpec {
            name: "early_media",
            form: EarlyMedia::FORM,
            default: KeyDefault::Literal("\"pass\""),
            effect: "What callers hear before the answer: what the called side sends; ringback that \
                     the edge plays until then; or nothing but their own phone's ringback.",
        },
        KeySpec {
            name: "ringback",
            form: "a path relative to [media] prompts_dir, without \"..\", or \"tone:...\"",
            default: KeyDefault::Absent {
                meaning: "\"tone:ringback\"",
                example: "\"tone:%(2000,4000,440,480)\"",
            },
            effect: "What the edge plays to callers while a phone rings.",
        },
    ],
};

static MEMBER: SectionSpec = SectionSpec {
    name: "member",
    effect: "A person with a phone.",
    keys: &[
        TENANT_REFERENCE,
        KeySpec {
            name: "extension",
            form: Extension::FORM,
            default: KeyDefault::Required { example: "\"101\"" },
            effect: "Short number within the tenant.",
        },
        KeySpec {
            name: "name",
            form: "1 to 80 characters on one line",
            default: KeyDefault::Required {
                example: "\"Ada Lovelace\"",
            },
            effect: "Display name.",
        },
        KeySpec {
            name: "sip_user",
            form: SipUser::FORM,
            default: KeyDefault::Required { example: "\"ada\"" },
            effect: "User name that the phone registers with.",
        },
        KeySpec {
            name: "password_file",
            form: "the path of a file, relative to the site file",
            default: KeyDefault::Required {
                example: "\"secrets/ada\"",
            },
            effect: "File with the phone's password on its only line.",
        },
        KeySpec {
            name: "forward_number",
            form: E164::FORM,
            default: KeyDefault::Absent {
                meaning: "none",
                example: "\"+442071838751\"",
            },
            effect: "Where calls may go when the phone cannot take them.",
        },
        KeySpec {
            name: "forward_always",
            form: Forwards::TARGET_FORM,
            default: KeyDefault::Absent {
                meaning: "nowhere",
                example: "\"102\"",
            },
            effect: "Where every call goes, without ringing the phone. This and the three below are what the member starts with; `member set` changes them.",
        },
        KeySpec {
            name: "forward_busy",
            form: Forwards::TARGET_FORM,
            default: KeyDefault::Absent {
                meaning: "nowhere",
                example: "\"102\"",
            },
            effect: "Where calls go while the phone or the member is busy.",
        },
        KeySpec {
            name: "forward_no_answer",
            form: Forwards::TARGET_FORM,
            default: KeyDefault::Absent {
                meaning: "nowhere",
                example: "\"102\"",
            },
            effect: "Where calls go that nobody answers in time.",
        },
        KeySpec {
            name: "forward_offline",
            form: Forwards::TARGET_FORM,
            default: KeyDefault::Absent {
                meaning: "nowhere",
                example: "\"+442071838751\"",
            },
            effect: "Where calls go while no phone is registered.",
        },
        KeySpec {
            name: "availability",
            form: Availability::FORM,
            default: KeyDefault::Literal("\"online\""),
            effect: "What the member starts with; the member's own choice is kept from then on.",
        },
        SRTP,
        KeySpec {
            name: "media",
            form: InterfaceName::FORM,
            default: KeyDefault::Absent {
                meaning: "its tenant's, else the first media address of the family that fits",
                example: "\"inside\"",
            },
            effect: "Our media address towards the member's phone.",
        },
        TRANSCODE,
        DTMF,
        MEMBER_PREFIXES,
        CALLS_PER_DAY,
        MINUTES_PER_DAY,
        CALLER_IDS,
    ],
};

static DID: SectionSpec = SectionSpec {
    name: "did",
    effect: "A number that carriers deliver.",
    keys: &[
        KeySpec {
            name: "number",
            form: E164::FORM,
            default: KeyDefault::Required {
                example: "\"+442071838750\"",
            },
            effect: "The number.",
        },
        TENANT_REFERENCE,
        KeySpec {
            name: "member",
            form: Extension::FORM,
            default: KeyDefault::Required { example: "\"101\"" },
            effect: "Extension of the member who answers.",
        },
        RECORD,
        CHANNELS_MAX,
        KeySpec {
            name: "early_media",
            form: EarlyMedia::FORM,
            default: KeyDefault::Absent {
                meaning: "its tenant's",
                example: "\"ringback\"",
            },
            effect: "What its callers hear before the answer.",
        },
    ],
};

static CONFERENCE: SectionSpec = SectionSpec {
    name: "conference",
    effect: "A number whose callers hear each other.",
    keys: &[
        KeySpec {
            name: "name",
            form: Name::FORM,
            default: KeyDefault::Required {
                example: "\"standup\"",
            },
            effect: "Its name within the tenant; recordings begin with it.",
        },
        TENANT_REFERENCE,
        KeySpec {
            name: "did",
            form: E164::FORM,
            default: KeyDefault::Required {
                example: "\"+442071838760\"",
            },
            effect: "The number that callers and members dial.",
        },
        KeySpec {
            name: "pin",
            form: "4 to 16 digits",
            default: KeyDefault::Absent {
                meaning: "none",
                example: "\"271828\"",
            },
            effect: "What callers have to enter, after two beeps; three tries.",
        },
        KeySpec {
            name: "announce",
            form: "true or false",
            default: KeyDefault::Literal("true"),
            effect: "A tone when somebody comes or goes.",
        },
        KeySpec {
            name: "join_muted",
            form: "true or false",
            default: KeyDefault::Literal("false"),
            effect: "Who joins only listens, until an operator unmutes that member.",
        },
        RECORD,
    ],
};

static GROUP: SectionSpec = SectionSpec {
    name: "group",
    effect: "Members that ring for one number.",
    keys: &[
        KeySpec {
            name: "name",
            form: Name::FORM,
            default: KeyDefault::Required {
                example: "\"sales\"",
            },
            effect: "Its name within the tenant.",
        },
        TENANT_REFERENCE,
        KeySpec {
            name: "extension",
            form: Extension::FORM,
            default: KeyDefault::Absent {
                meaning: "none",
                example: "\"600\"",
            },
            effect: "What members of the tenant dial.",
        },
        KeySpec {
            name: "dids",
            form: "a list of 1 to 64 E.164 numbers",
            default: KeyDefault::Absent {
                meaning: "none",
                example: "[\"+442071838770\"]",
            },
            effect: "Numbers that carriers deliver and that ring the group.",
        },
        KeySpec {
            name: "members",
            form: "a list of 1 to 64 extensions of members of the tenant",
            default: KeyDefault::Required {
                example: "[\"101\", \"102\"]",
            },
            effect: "Who rings, in this order. Members without a registered phone are left out.",
        },
        KeySpec {
            name: "strategy",
            form: Strategy::FORM,
            default: KeyDefault::Literal("\"simultaneous\""),
            effect: "All at once, one after the other, or each call beginning with the next member.",
        },
        KeySpec {
            name: "ring_secs",
            form: "1 to 600",
            default: KeyDefault::Literal("20"),
            effect: "How long each member rings, or all of them together.",
        },
        KeySpec {
            name: "skip_busy",
            form: "true or false",
            default: KeyDefault::Literal("true"),
            effect: "Whether members who are in a call are left out.",
        },
    ],
};

/// What a file under `prompts_dir` may be called.
const FILE_FORM: &str = "a path relative to [media] prompts_dir, without \"..\"";

/// A site file that is sound in itself; its password files have not been read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteDocument {
    tenants: Vec<Tenant>,
    trunks: Vec<TrunkDocument>,
    members: Vec<MemberDocument>,
    dids: Vec<Did>,
    conferences: Vec<Conference>,
    routes: Vec<Route>,
    groups: Vec<Group>,
    mentions: Vec<Mention>,
}

/// A place where the file names a media address.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mention {
    section: &'static str,
    name: InterfaceName,
    line: usize,
}

/// A file whose only line is a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretFile {
    /// The section that names it.
    pub(super) section: &'static str,
    /// The key that does.
    pub(super) key: &'static str,
    /// The line of that.
    pub(super) line: usize,
    /// As written.
    pub(super) path: PathBuf,
}

/// A `[[member]]` whose password file has not been read.
#[derive(Debug, Clone, PartialEq, Eq)]
struct MemberDocument {
    password_file: SecretFile,
    tenant: Name,
    extension: Extension,
    name: String,
    sip_user: SipUser,
    forward_number: Option<E164>,
    forwards: Forwards,
    availability: Availability,
    srtp: SrtpPolicy,
    media: Option<InterfaceName>,
    audio: PartyAudio,
    outbound: MemberOutbound,
}

impl SiteDocument {
    /// Checks every `media` against the entries of `[edge] media_addresses`, which stand in
    /// another file.
    ///
    /// # Errors
    /// Each name that no entry has, with its line in `file_name`.
    pub fn check_interfaces(
        &self,
        file_name: &str,
        interfaces: &[MediaAddress],
    ) -> Result<(), ConfigError> {
        let is_known = |mention: &&Mention| {
            let name = mention.name.as_str();
            interfaces.iter().any(|interface| interface.name == name)
        };
        let known: Vec<_> = interfaces.iter().map(|entry| entry.name.as_str()).collect();
        let unknown = self.mentions.iter().filter(|mention| !is_known(mention));
        let problems = unknown.map(|Mention { section, name, line }| Problem {
            file: file_name.to_owned(),
            line: Some(*line),
            message: format!(
                "[[{section}]] media = \"{name}\": no entry of [edge] media_addresses is named so; \
                 there are {}",
                known.join(", ")
            ),
        });
        ConfigError::from_problems(problems.collect()).map_or(Ok(()), Err)
    }

    /// Reads the secrets, and turns members' passwords into credentials. `secret` is asked once
    /// per file that is named.
    ///
    /// # Errors
    /// The first problem that `secret` reports.
    pub fn resolve(
        self,
        realm: &str,
        secret: impl Fn(&SecretFile) -> Result<String, ConfigError>,
    ) -> Result<Site, ConfigError> {
        let trunks = self.trunks.into_iter().map(|trunk| trunk.resolve(&secret));
        let trunks = trunks.collect::<Result<_, _>>()?;
        let members = self.members.into_iter().map(|member| {
            let password = secret(&member.password_file)?;
            let credential = Credential::new(member.sip_user.as_str(), realm, &password);
            Ok(Member {
                tenant: member.tenant,
                extension: member.extension,
                name: member.name,
                sip_user: member.sip_user,
                credential,
                forward_number: member.forward_number,
                forwards: member.forwards,
                availability: member.availability,
                srtp: member.srtp,
                media: member.media,
                audio: member.audio,
                outbound: member.outbound,
            })
        });
        Ok(Site {
            tenants: self.tenants,
            trunks,
            members: members.collect::<Result<_, _>>()?,
            dids: self.dids,
            conferences: self.conferences,
            routes: self.routes,
            groups: self.groups,
        })
    }
}

impl Document for SiteDocument {
    const SECTIONS: &'static [&'static SectionSpec] =
        &[&TENANT, &TRUNK, &MEMBER, &DID, &CONFERENCE, &GROUP, &ROUTE];

    fn read(reader: &Reader<'_>) -> Option<Self> {
        let mut names = Names::default();
        // Every section is read even after a problem, so that one run shows them all.
        let tenant_sections = reader.sections(&TENANT);
        let member_sections = reader.sections(&MEMBER);
        let tenants = read_each(&tenant_sections, |s| read_tenant(s, &mut names));
        let trunks = read_each(&reader.sections(&TRUNK), |s| read_trunk(s, &mut names));
        let members = read_each(&member_sections, |s| read_member(s, &mut names));
        let dids = read_each(&reader.sections(&DID), |s| read_did(s, &mut names));
        let conferences = read_each(&reader.sections(&CONFERENCE), |s| {
            read_conference(s, &mut names)
        });
        let routes = read_each(&reader.sections(&ROUTE), |s| read_route(s, &mut names));
        if let (Some(_), Some(_), Some(_)) = (&tenants, &members, &dids) {
            for section in &tenant_sections {
                outbound::check_tenants_caller_id(section, &names);
            }
            for section in &member_sections {
                outbound::check_caller_ids(section, "caller_ids", &names);
            }
        }
        let groups = read_each(&reader.sections(&GROUP), |s| read_group(s, &mut names));
        check_forwards(&member_sections, members.as_deref(), &names);
        Some(Self {
            tenants: tenants?,
            trunks: trunks?,
            members: members?,
            dids: dids?,
            conferences: conferences?,
            routes: routes?,
            groups: groups?,
            mentions: names.mentions,
        })
    }
}

/// What earlier sections of the file have taken, with the line that took it.
#[derive(Default)]
struct Names {
    tenants: HashMap<Name, usize>,
    /// `media` of the tenants that have one.
    tenants_media: HashMap<Name, InterfaceName>,
    mentions: Vec<Mention>,
    trunks: HashMap<Name, usize>,
    sources: HashMap<IpNet, usize>,
    extensions: HashMap<(Name, Extension), usize>,
    sip_users: HashMap<SipUser, usize>,
    numbers: HashMap<E164, usize>,
    number_owners: HashMap<E164, Name>,
    conferences: HashMap<(Name, Name), usize>,
    /// What each tenant dials for help.
    emergency: HashMap<Name, Vec<String>>,
    /// Whose each trunk is, and whether calls can go out through it.
    outbound_trunks: HashMap<Name, (Name, bool)>,
    routes: HashMap<(Name, String), usize>,
    groups: HashMap<(Name, Name), usize>,
    /// Extensions of members; those of groups are in `extensions` beside them.
    members: HashSet<(Name, Extension)>,
}

fn read_each<T>(
    sections: &[Section<'_>],
    mut read: impl FnMut(&Section<'_>) -> Option<T>,
) -> Option<Vec<T>> {
    let items: Vec<Option<T>> = sections.iter().map(&mut read).collect();
    items.into_iter().collect()
}

fn read_tenant(section: &Section<'_>, names: &mut Names) -> Option<Tenant> {
    let name: Name = section.value("name", parsed)?;
    take(section, "name", &mut names.tenants, name.clone());
    if let Some(media) = interface(section, TENANT.name, names)? {
        names.tenants_media.insert(name.clone(), media);
    }
    let hold_music = section.optional("hold_music", file_name);
    let outbound = read_tenant_outbound(section)?;
    names
        .emergency
        .insert(name.clone(), outbound.emergency.clone());
    let early_media = section.value("early_media", parsed::<EarlyMedia>);
    let ringback = section.optional("ringback", sound);
    Some(Tenant {
        name,
        hold_music: hold_music?,
        outbound,
        early_media: early_media?,
        ringback: ringback?,
    })
}

fn read_member(section: &Section<'_>, names: &mut Names) -> Option<MemberDocument> {
    let tenant = tenant_reference(section, names);
    let extension = section.value("extension", parsed::<Extension>);
    let name = section.value("name", display_name);
    let sip_user = section.value("sip_user", parsed::<SipUser>);
    let password_file = section.value("password_file", trunk::path);
    let forward_number = section.optional("forward_number", parsed::<E164>);
    let forwards = forwards(section);
    let availability = section.value("availability", parsed::<Availability>);
    let srtp = section.value("srtp", parsed::<SrtpPolicy>);
    let own_media = interface(section, MEMBER.name, names);
    let audio = party_audio(section);
    let outbound = read_member_outbound(section);
    if let (Some(tenant), Some(extension)) = (&tenant, &extension) {
        let key = (tenant.clone(), extension.clone());
        take(section, "extension", &mut names.extensions, key.clone());
        names.members.insert(key);
        let emergency = names.emergency.get(tenant);
        if emergency.is_some_and(|numbers| numbers.iter().any(|n| n == extension.as_str())) {
            section.reject("extension", "this is what the tenant dials for help");
        }
    }
    if let Some(sip_user) = &sip_user {
        take(section, "sip_user", &mut names.sip_users, sip_user.clone());
    }
    let tenants_media = || names.tenants_media.get(tenant.as_ref()?).cloned();
    let media = own_media.map(|own| own.or_else(tenants_media));
    Some(MemberDocument {
        password_file: SecretFile {
            section: MEMBER.name,
            key: "password_file",
            line: section.line_of("password_file"),
            path: password_file?,
        },
        tenant: tenant?,
        extension: extension?,
        name: name?,
        sip_user: sip_user?,
        forward_number: forward_number?,
        forwards: forwards?,
        availability: availability?,
        srtp: srtp?,
        media: media?,
        audio: audio?,
        outbound: outbound?,
    })
}

fn party_audio(section: &Section<'_>) -> Option<PartyAudio> {
    let transcode = section.value("transcode", parsed::<Transcode>);
    let dtmf = section.value("dtmf", parsed::<Dtmf>);
    Some(PartyAudio {
        transcode: transcode?,
        dtmf: dtmf?,
    })
}

/// `media` of a section, noted down to be checked against what there is.
fn interface(
    section: &Section<'_>,
    kind: &'static str,
    names: &mut Names,
) -> Option<Option<InterfaceName>> {
    let media = section.optional("media", parsed::<InterfaceName>)?;
    if let Some(name) = &media {
        names.mentions.push(Mention {
            section: kind,
            name: name.clone(),
            line: section.line_of("media"),
        });
    }
    Some(media)
}

fn read_did(section: &Section<'_>, names: &mut Names) -> Option<Did> {
    let number = section.value("number", parsed::<E164>);
    let tenant = tenant_reference(section, names);
    let member = section.value("member", parsed::<Extension>);
    let record = section.value("record", parsed::<RecordCalls>);
    let channels_max = outbound::channels_max(section);
    let early_media = section.optional("early_media", parsed::<EarlyMedia>);
    if let Some(number) = &number {
        take(section, "number", &mut names.numbers, number.clone());
        if let Some(tenant) = &tenant {
            names.number_owners.insert(number.clone(), tenant.clone());
        }
    }
    if let (Some(tenant), Some(member)) = (&tenant, &member) {
        let key = (tenant.clone(), member.clone());
        if names.tenants.contains_key(tenant) && !names.members.contains(&key) {
            let problem = format!("tenant \"{tenant}\" has no [[member]] with this extension");
            section.reject("member", &problem);
        }
    }
    Some(Did {
        number: number?,
        tenant: tenant?,
        member: member?,
        record: record?,
        channels_max: channels_max?,
        early_media: early_media?,
    })
}

fn read_group(section: &Section<'_>, names: &mut Names) -> Option<Group> {
    let name = section.value("name", parsed::<Name>);
    let tenant = tenant_reference(section, names);
    let extension = section.optional("extension", parsed::<Extension>);
    let dids = section.optional("dids", |value| list::<E164>(value, Group::DIDS_MAX));
    let members = section.value("members", |value| {
        list::<Extension>(value, Group::MEMBERS_MAX)
    });
    let strategy = section.value("strategy", parsed::<Strategy>);
    let ring_secs = section.value("ring_secs", |value| value.as_number(1..=600));
    let skip_busy = section.value("skip_busy", |value| value.as_bool());
    let tenant = tenant?;
    if let Some(name) = &name {
        let key = (tenant.clone(), name.clone());
        take(section, "name", &mut names.groups, key);
    }
    if let Some(Some(extension)) = &extension {
        let key = (tenant.clone(), extension.clone());
        take(section, "extension", &mut names.extensions, key);
    }
    for did in dids.iter().flatten().flatten() {
        take(section, "dids", &mut names.numbers, did.clone());
    }
    for member in members.iter().flatten() {
        let key = (tenant.clone(), member.clone());
        if names.tenants.contains_key(&tenant) && !names.members.contains(&key) {
            let problem = format!("tenant \"{tenant}\" has no [[member]] {member}");
            section.reject("members", &problem);
        }
    }
    Some(Group {
        tenant,
        name: name?,
        extension: extension?,
        dids: dids?.unwrap_or_default(),
        members: members?,
        strategy: strategy?,
        ring_secs: ring_secs?,
        skip_busy: skip_busy?,
    })
}

fn forwards(section: &Section<'_>) -> Option<Forwards> {
    let mut forwards = Forwards::default();
    let mut is_sound = true;
    for event in ForwardEvent::ALL {
        let target = section.optional(event.key(), |value| {
            let text = value.as_str()?;
            Forwards::is_target(text).then(|| text.to_owned())
        });
        match target {
            Some(target) => forwards.set(event, target),
            None => is_sound = false,
        }
    }
    is_sound.then_some(forwards)
}

/// An extension that calls are forwarded to must exist; it may stand further down in the file.
fn check_forwards(sections: &[Section<'_>], members: Option<&[MemberDocument]>, names: &Names) {
    for (section, member) in sections.iter().zip(members.unwrap_or_default()) {
        for event in ForwardEvent::ALL {
            let target = member.forwards.target(event);
            let extension = target.and_then(|target| target.parse::<Extension>().ok());
            let Some(extension) = extension else { continue };
            let key = (member.tenant.clone(), extension);
            if names.tenants.contains_key(&member.tenant) && !names.extensions.contains_key(&key) {
                let problem = format!("tenant \"{}\" has no such extension", member.tenant);
                section.reject(event.key(), &problem);
            }
        }
    }
}

/// A list of 1 to `len_max` different items.
fn list<T: FromStr + PartialEq>(value: Value<'_>, len_max: usize) -> Option<Vec<T>> {
    let items = value.as_list()?.map(parsed::<T>);
    let items = items.collect::<Option<Vec<T>>>()?;
    let is_new = |(at, item): (usize, &T)| !items[..at].contains(item);
    let fits = (1..=len_max).contains(&items.len()) && items.iter().enumerate().all(is_new);
    fits.then_some(items)
}

/// A file, or a tone that can be played.
fn sound(value: Value<'_>) -> Option<String> {
    match value.as_str()?.strip_prefix("tone:") {
        Some(tone) => crate::tones::named(tone).map(|_| format!("tone:{tone}")),
        None => file_name(value),
    }
}

fn read_conference(section: &Section<'_>, names: &mut Names) -> Option<Conference> {
    let name = section.value("name", parsed::<Name>);
    let tenant = tenant_reference(section, names);
    let did = section.value("did", parsed::<E164>);
    let pin = section.optional("pin", pin);
    let announce = section.value("announce", |v| v.as_bool());
    let join_muted = section.value("join_muted", |v| v.as_bool());
    let record = section.value("record", parsed::<RecordCalls>);
    if let (Some(tenant), Some(name)) = (&tenant, &name) {
        let key = (tenant.clone(), name.clone());
        take(section, "name", &mut names.conferences, key);
    }
    if let Some(did) = &did {
        take(section, "did", &mut names.numbers, did.clone());
    }
    Some(Conference {
        tenant: tenant?,
        name: name?,
        did: did?,
        pin: pin?,
        announce: announce?,
        join_muted: join_muted?,
        record: record?,
    })
}

fn pin(value: Value<'_>) -> Option<Pin> {
    let text = value.as_str()?;
    let fits = (4..=16).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    fits.then(|| Pin(text.to_owned()))
}

/// A relative path that stays below where it begins.
fn file_name(value: Value<'_>) -> Option<String> {
    let text = value.as_str()?;
    crate::config::is_below(text).then(|| text.to_owned())
}

fn tenant_reference(section: &Section<'_>, names: &Names) -> Option<Name> {
    let tenant = section.value("tenant", parsed::<Name>)?;
    if !names.tenants.contains_key(&tenant) {
        section.reject("tenant", "there is no [[tenant]] of this name in the file");
    }
    Some(tenant)
}

/// Reports `key` when an earlier section has it.
fn take<K: Eq + Hash>(section: &Section<'_>, name: &str, taken: &mut HashMap<K, usize>, key: K) {
    match taken.entry(key) {
        Entry::Occupied(first) => {
            let line = first.get();
            section.reject(
                name,
                &format!("already taken by the section on line {line}"),
            );
        }
        Entry::Vacant(free) => {
            free.insert(section.line());
        }
    }
}

fn parsed<T: FromStr>(value: Value<'_>) -> Option<T> {
    value.as_str()?.parse().ok()
}

fn display_name(value: Value<'_>) -> Option<String> {
    let name = value.as_str()?.trim();
    let fits = !name.is_empty()
        && name.chars().count() <= DISPLAY_NAME_CHARS_MAX
        && !name.chars().any(char::is_control);
    fits.then(|| name.to_owned())
}

fn networks(value: Value<'_>, len_max: usize) -> Option<Vec<IpNet>> {
    let networks = value
        .as_list()?
        .map(|item| network(item.as_str()?))
        .collect::<Option<Vec<_>>>()?;
    (1..=len_max).contains(&networks.len()).then_some(networks)
}

/// Host bits must be zero: `192.0.2.7/24` may mean one host or its network, and guessing wrong
/// lets strangers in. IPv4 inside IPv6 is refused because no socket reports such a source.
fn network(text: &str) -> Option<IpNet> {
    let network = match text.parse::<IpNet>() {
        Ok(network) => network,
        Err(_) => IpNet::from(text.parse::<IpAddr>().ok()?),
    };
    let address = network.addr();
    (network.trunc() == network && address.to_canonical() == address).then_some(network)
}
