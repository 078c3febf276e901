//! What an apply would do: the difference between the site file and the store. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use crate::party::{Dtmf, EarlyMedia, PartyAudio, RecordCalls};
use crate::pin::PinHash;
use crate::site::{
    Availability, Conference, Did, E164, Extension, ForwardEvent, Forwards, Group, Member, Route,
    Site, Tenant, Trunk,
};
use crate::trunk::settings::differing;
use crate::trunk::{MemberOutbound, TenantOutbound, TrunkSettings};

/// Everything an apply does, and what it leaves alone.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Plan {
    /// In the order of kinds, then keys.
    pub changes: Vec<Change>,
    /// Objects that are as the site file states them.
    pub unchanged_count: usize,
    /// Objects that the site file does not state and that stay.
    pub kept: Vec<Kept>,
}

/// One object that changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// What happens to it.
    pub action: Action,
    /// What it is.
    pub object: ObjectKind,
    /// Which one: a name, a number, or `tenant/extension`.
    pub key: String,
    /// The fields that differ; none for a deletion.
    pub fields: Vec<FieldChange>,
}

/// One field that changes. Passwords show as `(secret)`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldChange {
    /// Key of the site file.
    pub field: &'static str,
    /// `None` when the object or the field is new.
    pub from: Option<String>,
    /// `None` when the field goes.
    pub to: Option<String>,
}

/// One object that the site file does not state and that stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Kept {
    /// What it is.
    pub object: ObjectKind,
    /// Which one.
    pub key: String,
    /// Why it stays.
    pub reason: String,
}

/// What happens to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It is new.
    Create,
    /// It is there and differs.
    Update,
    /// It is no longer stated.
    Delete,
}

/// Kinds of objects, in the order in which one may refer to an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ObjectKind {
    /// `[[tenant]]`
    Tenant,
    /// `[[trunk]]`
    Trunk,
    /// `[[member]]`
    Member,
    /// `[[did]]`
    Did,
    /// `[[conference]]`
    Conference,
    /// `[[route]]`
    Route,
    /// `[[group]]`
    Group,
}

impl ObjectKind {
    const fn as_str(self) -> &'static str {
        match self {
            ObjectKind::Tenant => "tenant",
            ObjectKind::Trunk => "trunk",
            ObjectKind::Member => "member",
            ObjectKind::Did => "did",
            ObjectKind::Conference => "conference",
            ObjectKind::Route => "route",
            ObjectKind::Group => "group",
        }
    }
}

/// Who made an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// An apply.
    Site,
    /// Anybody else.
    Operator,
}

/// An object of the store, in the form that a plan compares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StoredObject {
    pub(super) origin: Origin,
    /// The member chose the availability; the site file no longer speaks for it.
    pub(super) availability_is_members: bool,
    pub(super) fields: Fields,
}

pub(super) type ObjectKey = (ObjectKind, String);
pub(super) type Stored = BTreeMap<ObjectKey, StoredObject>;

/// Fields that are absent have no entry.
pub(super) type Fields = BTreeMap<&'static str, String>;

const PASSWORD: &str = "password_file";
const AVAILABILITY: &str = "availability";
pub(super) const SRTP: &str = "srtp";
pub(super) const MEDIA_FROM: &str = "media_from";
pub(super) const MEDIA: &str = "media";
pub(super) const HOLD_MUSIC: &str = "hold_music";
pub(super) const RECORD: &str = "record";
pub(super) const EARLY_MEDIA: &str = "early_media";
const RINGBACK: &str = "ringback";
const TRANSCODE: &str = "transcode";
const DTMF: &str = "dtmf";
const PIN: &str = "pin";
const JOIN_MUTED: &str = "join_muted";
const USER: &str = "user";
const HEADERS: &str = "headers";
const CHANNELS_MAX: &str = "channels_max";
const TRUNKS: &str = "trunks";

/// The PINs that a site states, as the store is to have them, by their conferences.
pub(super) type Pins = BTreeMap<ObjectKey, PinHash>;

/// Plans the way from `stored` to `site`.
///
/// # Errors
/// What `site` states and the store must keep cannot both be.
pub(super) fn plan(
    site: &Site,
    pins: &Pins,
    stored: &Stored,
    prune: bool,
) -> Result<Plan, Vec<String>> {
    let stated = stated(site, pins);
    let unstated = || stored.iter().filter(|(key, _)| !stated.contains_key(*key));
    let kept = kept(unstated(), prune);
    let conflicts = conflicts(&stated, stored, &kept);
    if !conflicts.is_empty() {
        return Err(conflicts);
    }
    let mut plan = Plan::default();
    for ((object, key), fields) in &stated {
        let before = stored.get(&(*object, key.clone()));
        let fields = match before {
            None => differences(&Fields::new(), fields, false),
            Some(before) => differences(&before.fields, fields, before.availability_is_members),
        };
        let action = match before {
            None => Action::Create,
            Some(_) if fields.is_empty() => {
                plan.unchanged_count += 1;
                continue;
            }
            Some(_) => Action::Update,
        };
        plan.changes.push(Change {
            action,
            object: *object,
            key: key.clone(),
            fields,
        });
    }
    for (id, _) in unstated() {
        let (object, key) = id.clone();
        match kept.get(id) {
            Some(reason) => plan.kept.push(Kept {
                object,
                key,
                reason: reason.clone(),
            }),
            None => plan.changes.push(Change {
                action: Action::Delete,
                object,
                key,
                fields: Vec::new(),
            }),
        }
    }
    plan.changes
        .sort_by(|a, b| (a.object, &a.key).cmp(&(b.object, &b.key)));
    Ok(plan)
}

/// Unstated objects that stay, with the reason: those that no apply has made, and whatever those
/// refer to.
fn kept<'a>(
    unstated: impl Iterator<Item = (&'a ObjectKey, &'a StoredObject)>,
    prune: bool,
) -> BTreeMap<ObjectKey, String> {
    let unstated: BTreeMap<_, _> = unstated.collect();
    let mut kept: BTreeMap<ObjectKey, String> = BTreeMap::new();
    if prune {
        return kept;
    }
    // From DIDs down to tenants: each may hold what stands below it.
    for (id, object) in unstated.iter().rev() {
        if object.origin == Origin::Operator {
            kept.entry((*id).clone())
                .or_insert_with(|| "not made by an apply; --prune deletes it".to_owned());
        }
        if !kept.contains_key(*id) {
            continue;
        }
        for below in refers_to(id, &object.fields) {
            if unstated.contains_key(&below) {
                let (kind, key) = id;
                kept.entry(below)
                    .or_insert_with(|| format!("{} {key} needs it", kind.as_str()));
            }
        }
    }
    kept
}

fn refers_to((kind, key): &ObjectKey, fields: &Fields) -> Vec<ObjectKey> {
    let tenant = match kind {
        ObjectKind::Tenant => None,
        ObjectKind::Member | ObjectKind::Conference | ObjectKind::Group | ObjectKind::Route => {
            key.split_once('/').map(|(tenant, _)| tenant)
        }
        ObjectKind::Trunk | ObjectKind::Did => fields.get("tenant").map(String::as_str),
    };
    let Some(tenant) = tenant else {
        return Vec::new();
    };
    let mut below = vec![(ObjectKind::Tenant, tenant.to_owned())];
    if let Some(member) = fields.get("member") {
        below.push((ObjectKind::Member, format!("{tenant}/{member}")));
    }
    let trunks = fields.get(TRUNKS).map(String::as_str).unwrap_or_default();
    let trunks = trunks.split_whitespace();
    below.extend(trunks.map(|trunk| (ObjectKind::Trunk, trunk.to_owned())));
    below
}

/// What must be unique and would not be.
fn conflicts(
    stated: &BTreeMap<ObjectKey, Fields>,
    stored: &Stored,
    kept: &BTreeMap<ObjectKey, String>,
) -> Vec<String> {
    let unique = |kind: ObjectKind, fields: &Fields| -> Vec<(&'static str, String)> {
        let field = match kind {
            ObjectKind::Member => "sip_user",
            ObjectKind::Trunk => "sources",
            ObjectKind::Conference => "did",
            ObjectKind::Group => "dids",
            ObjectKind::Tenant | ObjectKind::Did | ObjectKind::Route => return Vec::new(),
        };
        let value = fields.get(field).map(String::as_str).unwrap_or_default();
        let values = value.split_whitespace();
        values.map(|v| (field, v.to_owned())).collect()
    };
    let mut taken = BTreeMap::new();
    for id in kept.keys() {
        for value in stored
            .get(id)
            .map(|o| unique(id.0, &o.fields))
            .unwrap_or_default()
        {
            taken.insert(value, id);
        }
    }
    let mut conflicts = Vec::new();
    for ((kind, key), fields) in stated {
        for (field, value) in unique(*kind, fields) {
            if let Some((other_kind, other)) = taken.get(&(field, value.clone())) {
                conflicts.push(format!(
                    "{} {key}: {field} {value} belongs to {} {other}, which this file does not \
                     state; change it or delete that with --prune",
                    kind.as_str(),
                    other_kind.as_str(),
                ));
            }
        }
    }
    conflicts
}

fn differences(from: &Fields, to: &Fields, keep_availability: bool) -> Vec<FieldChange> {
    let names: BTreeSet<&'static str> = from.keys().chain(to.keys()).copied().collect();
    names
        .into_iter()
        .filter(|name| !(keep_availability && *name == AVAILABILITY))
        .filter(|name| from.get(name) != to.get(name))
        .map(|field| {
            let shown = |value: Option<&String>| match field {
                PASSWORD | PIN | HEADERS => value.map(|_| "(secret)".to_owned()),
                _ => value.cloned(),
            };
            FieldChange {
                field,
                from: shown(from.get(field)),
                to: shown(to.get(field)),
            }
        })
        .collect()
}

fn stated(site: &Site, pins: &Pins) -> BTreeMap<ObjectKey, Fields> {
    let tenants = site
        .tenants
        .iter()
        .map(|tenant| (tenant_key(tenant), tenant_fields(tenant)));
    let trunks = site
        .trunks
        .iter()
        .map(|trunk| (trunk_key(trunk), trunk_fields(trunk)));
    let members = site
        .members
        .iter()
        .map(|member| (member_key(member), member_fields(member)));
    let dids = site.dids.iter().map(|did| (did_key(did), did_fields(did)));
    let conferences = site.conferences.iter().map(|conference| {
        let key = conference_key(conference);
        let fields = conference_fields(conference, pins.get(&key));
        (key, fields)
    });
    let people = tenants.chain(trunks).chain(members);
    let routes = site
        .routes
        .iter()
        .map(|route| (route_key(route), route_fields(route)));
    let groups = site
        .groups
        .iter()
        .map(|group| (group_key(group), group_fields(group)));
    people
        .chain(dids)
        .chain(conferences)
        .chain(groups)
        .chain(routes)
        .collect()
}

pub(super) fn tenant_key(tenant: &Tenant) -> ObjectKey {
    (ObjectKind::Tenant, tenant.name.to_string())
}

pub(super) fn trunk_key(trunk: &Trunk) -> ObjectKey {
    (ObjectKind::Trunk, trunk.name.to_string())
}

pub(super) fn member_key(member: &Member) -> ObjectKey {
    let key = format!("{}/{}", member.tenant, member.extension);
    (ObjectKind::Member, key)
}

pub(super) fn did_key(did: &Did) -> ObjectKey {
    (ObjectKind::Did, did.number.as_str().to_owned())
}

pub(super) fn conference_key(conference: &Conference) -> ObjectKey {
    let key = format!("{}/{}", conference.tenant, conference.name);
    (ObjectKind::Conference, key)
}

pub(super) fn group_key(group: &Group) -> ObjectKey {
    let key = format!("{}/{}", group.tenant, group.name);
    (ObjectKind::Group, key)
}

pub(super) fn tenant_base_fields(
    hold_music: Option<String>,
    early_media: EarlyMedia,
    ringback: Option<String>,
) -> Fields {
    let early_media = (early_media != EarlyMedia::default()).then(|| early_media.to_string());
    let fields = [
        (HOLD_MUSIC, hold_music),
        (EARLY_MEDIA, early_media),
        (RINGBACK, ringback),
    ];
    let stated = |(name, value): (&'static str, Option<String>)| Some((name, value?));
    fields.into_iter().filter_map(stated).collect()
}

/// What is nowhere is not named.
pub(super) fn put_forwards(fields: &mut Fields, forwards: &Forwards) {
    for event in ForwardEvent::ALL {
        if let Some(target) = forwards.target(event) {
            fields.insert(event.key(), target.to_owned());
        }
    }
}

pub(super) fn group_fields(group: &Group) -> Fields {
    let mut fields = Fields::from([
        ("members", list_text(&group.members)),
        ("strategy", group.strategy.to_string()),
        ("ring_secs", group.ring_secs.to_string()),
        ("skip_busy", group.skip_busy.to_string()),
    ]);
    if let Some(extension) = &group.extension {
        fields.insert("extension", extension.to_string());
    }
    if !group.dids.is_empty() {
        fields.insert("dids", dids_text(&group.dids));
    }
    fields
}

/// The form in which extensions are stored and compared.
pub(super) fn list_text(extensions: &[Extension]) -> String {
    let items: Vec<_> = extensions.iter().map(Extension::as_str).collect();
    items.join(" ")
}

/// The form in which numbers are stored and compared.
pub(super) fn dids_text(dids: &[E164]) -> String {
    let items: Vec<_> = dids.iter().map(E164::as_str).collect();
    items.join(" ")
}

pub(super) fn route_key(route: &Route) -> ObjectKey {
    let key = format!("{}/{}", route.tenant, route.prefix);
    (ObjectKind::Route, key)
}

pub(super) fn route_fields(route: &Route) -> Fields {
    Fields::from([(TRUNKS, names_text(&route.trunks))])
}

/// The form in which names are stored and compared.
pub(super) fn names_text(names: &[crate::site::Name]) -> String {
    let names: Vec<_> = names.iter().map(ToString::to_string).collect();
    names.join(" ")
}

fn tenant_fields(tenant: &Tenant) -> Fields {
    let mut fields = tenant_base_fields(
        tenant.hold_music.clone(),
        tenant.early_media,
        tenant.ringback.clone(),
    );
    put_tenant_outbound(&mut fields, &tenant.outbound);
    fields
}

/// What calls out may do and cost. What is at its default is not named.
pub(super) fn put_tenant_outbound(fields: &mut Fields, outbound: &TenantOutbound) {
    put_settings(fields, outbound, |key| match key {
        "prefixes" => "outbound_prefixes",
        "daily" => "outbound_per_day",
        "duration_max_secs" => "outbound_duration_max_secs",
        "plan" => "dial_plan",
        "emergency" => "emergency",
        "caller_id" => "caller_id",
        _ => CHANNELS_MAX,
    });
}

/// The same for a member.
pub(super) fn put_member_outbound(fields: &mut Fields, outbound: &MemberOutbound) {
    put_settings(fields, outbound, |key| match key {
        "prefixes" => "outbound_prefixes",
        "daily" => "outbound_per_day",
        _ => "caller_ids",
    });
}

/// Where calls to a trunk go, and how.
pub(super) fn put_trunk_settings(fields: &mut Fields, settings: &TrunkSettings) {
    let open = TrunkSettings {
        login: None,
        ..settings.clone()
    };
    put_settings(fields, &open, |key| match key {
        "destinations" => "destinations",
        "transport" => "transport",
        "register" => "register",
        "source_names" => "source_names",
        "plan" => "dial_plan",
        "numbers_in" => "numbers_in",
        "numbers_out" => "numbers_out",
        "headers" => HEADERS,
        "cps" => "cps",
        "options_secs" => "options_secs",
        "from_domain" => "from_domain",
        "identity" => "identity",
        _ => CHANNELS_MAX,
    });
    if let Some(login) = &settings.login {
        fields.insert(USER, login.user.clone());
        fields.insert(PASSWORD, login.password.0.clone());
    }
}

/// Compares as JSON what the store keeps as JSON.
fn put_settings<T: Serialize + Default>(
    fields: &mut Fields,
    settings: &T,
    name: impl Fn(&str) -> &'static str,
) {
    for (key, value) in differing(settings) {
        let text = match value {
            serde_json::Value::String(text) => text,
            other => other.to_string(),
        };
        fields.insert(name(&key), text);
    }
}

/// What is at its default is not named.
pub(super) fn put_audio(fields: &mut Fields, audio: PartyAudio) {
    if audio.transcode != PartyAudio::default().transcode {
        fields.insert(TRANSCODE, audio.transcode.to_string());
    }
    if audio.dtmf != Dtmf::default() {
        fields.insert(DTMF, audio.dtmf.to_string());
    }
}

fn conference_fields(conference: &Conference, pin: Option<&PinHash>) -> Fields {
    conference_base_fields(
        conference.did.as_str(),
        pin,
        [conference.announce, conference.join_muted],
        conference.record,
    )
}

pub(super) fn conference_base_fields(
    did: &str,
    pin: Option<&PinHash>,
    [announce, join_muted]: [bool; 2],
    record: RecordCalls,
) -> Fields {
    let mut fields = Fields::from([
        ("did", did.to_owned()),
        ("announce", announce.to_string()),
        (RECORD, record.to_string()),
    ]);
    if join_muted {
        fields.insert(JOIN_MUTED, join_muted.to_string());
    }
    if let Some(pin) = pin {
        fields.insert(PIN, pin.to_string());
    }
    fields
}

pub(super) fn trunk_fields(trunk: &Trunk) -> Fields {
    let mut fields = Fields::from([
        ("tenant", trunk.tenant.to_string()),
        ("sources", networks_text(&trunk.sources)),
        (SRTP, trunk.srtp.to_string()),
    ]);
    if !trunk.media_from.is_empty() {
        fields.insert(MEDIA_FROM, networks_text(&trunk.media_from));
    }
    if let Some(media) = &trunk.media {
        fields.insert(MEDIA, media.to_string());
    }
    put_audio(&mut fields, trunk.audio);
    put_trunk_settings(&mut fields, &trunk.settings);
    fields
}

/// The form in which networks are stored and compared.
pub(super) fn networks_text(networks: &[ipnet::IpNet]) -> String {
    let networks: Vec<_> = networks.iter().map(ToString::to_string).collect();
    networks.join(" ")
}

pub(super) fn member_fields(member: &Member) -> Fields {
    let credential = &member.credential;
    let hashes = credential.hashes_hex();
    let mut fields = member_base_fields(
        &member.name,
        member.sip_user.as_str(),
        [credential.realm(), &hashes[0], &hashes[1], &hashes[2]],
        member.availability,
    );
    fields.insert(SRTP, member.srtp.to_string());
    if let Some(number) = &member.forward_number {
        fields.insert("forward_number", number.as_str().to_owned());
    }
    if let Some(media) = &member.media {
        fields.insert(MEDIA, media.to_string());
    }
    put_forwards(&mut fields, &member.forwards);
    put_audio(&mut fields, member.audio);
    put_member_outbound(&mut fields, &member.outbound);
    fields
}

pub(super) fn member_base_fields(
    name: &str,
    sip_user: &str,
    credential: [&str; 4],
    availability: Availability,
) -> Fields {
    Fields::from([
        ("name", name.to_owned()),
        ("sip_user", sip_user.to_owned()),
        (PASSWORD, credential.join("\n")),
        (AVAILABILITY, availability.to_string()),
    ])
}

pub(super) fn did_fields(did: &Did) -> Fields {
    let mut fields = Fields::from([
        ("tenant", did.tenant.to_string()),
        ("member", did.member.to_string()),
    ]);
    if did.record != RecordCalls::default() {
        fields.insert(RECORD, did.record.to_string());
    }
    put_channels(&mut fields, did.channels_max);
    if let Some(early_media) = did.early_media {
        fields.insert(EARLY_MEDIA, early_media.to_string());
    }
    fields
}

pub(super) fn put_channels(fields: &mut Fields, channels_max: Option<u32>) {
    if let Some(channels_max) = channels_max {
        fields.insert(CHANNELS_MAX, channels_max.to_string());
    }
}

/// One line per object, `+` created, `~` changed, `-` deleted, then a summary.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for change in &self.changes {
            let sign = match change.action {
                Action::Create => '+',
                Action::Update => '~',
                Action::Delete => '-',
            };
            write!(f, "{sign} {} {}", change.object.as_str(), change.key)?;
            for (i, field) in change.fields.iter().enumerate() {
                write!(f, "{} {}: ", if i == 0 { "" } else { "," }, field.field)?;
                match (&field.from, &field.to) {
                    (Some(from), Some(to)) => write!(f, "{from} -> {to}")?,
                    (Some(from), None) => write!(f, "{from} -> (none)")?,
                    (None, Some(to)) if change.action == Action::Update => {
                        write!(f, "(none) -> {to}")?;
                    }
                    (None, Some(to)) => write!(f, "{to}")?,
                    (None, None) => {}
                }
            }
            writeln!(f)?;
        }
        for kept in &self.kept {
            writeln!(
                f,
                "= {} {} ({})",
                kept.object.as_str(),
                kept.key,
                kept.reason
            )?;
        }
        let count = |action| self.changes.iter().filter(|c| c.action == action).count();
        write!(
            f,
            "{} to create, {} to change, {} to delete, {} unchanged, {} kept",
            count(Action::Create),
            count(Action::Update),
            count(Action::Delete),
            self.unchanged_count,
            self.kept.len()
        )
    }
}
