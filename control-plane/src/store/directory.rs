//! Tenants, trunks, members and DIDs: reading them, and carrying out a plan.

use std::collections::BTreeMap;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use sqlx::sqlite::SqliteRow;
use sqlx::{Connection, SqliteConnection};

use super::connection::translate;
use super::plan::{
    self, Action, Fields, ObjectKey, ObjectKind, Origin, Pins, Plan, Stored, StoredObject,
};
use super::records::{column, named, optional_named};
use super::snapshot::{ConferenceRoute, MemberRoute, RoutingSnapshot, TenantSounds, TrunkRoute};
use super::{ApplyOptions, StoreError, pins};
use crate::credential::Credential;
use crate::party::{EarlyMedia, PartyAudio, RecordCalls};
use crate::pin::PinHash;
use crate::site::{
    Availability, Conference, Did, E164, Extension, ForwardEvent, Forwards, Group, InterfaceName,
    Member, Name, Route, Site, Tenant, Trunk,
};
use crate::trunk::settings::{from_json, to_json};

/// A member as lists show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MemberRow {
    /// Tenant of the member.
    pub tenant: String,
    /// Number within the tenant.
    pub extension: String,
    /// Display name.
    pub name: String,
    /// Digest user name.
    pub sip_user: String,
    /// Where calls may go when the phone cannot take them.
    pub forward_number: Option<String>,
    /// `online`, `busy` or `offline`.
    pub availability: String,
    /// Who chose that: `site` or `member`.
    pub availability_set_by: String,
    /// `off`, `preferred` or `required`.
    pub srtp: String,
    /// Our media address towards the phone, by name.
    pub media: Option<String>,
    /// `off` or `when_needed`.
    pub transcode: String,
    /// `rfc4733`, `inband` or `info`.
    pub dtmf: String,
}

/// A DID as lists show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DidRow {
    /// E.164 number.
    pub number: String,
    /// Whose it is.
    pub tenant: String,
    /// Extension of the member who answers.
    pub member: String,
    /// `never` or `always`.
    pub record: String,
}

/// A trunk as lists show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrunkRow {
    /// Its name.
    pub name: String,
    /// Whose numbers it delivers.
    pub tenant: String,
    /// Networks its requests come from.
    pub sources: Vec<String>,
    /// `off`, `preferred` or `required`.
    pub srtp: String,
    /// Networks its media may come from beside the address in its SDP.
    pub media_from: Vec<String>,
    /// Our media address towards it, by name.
    pub media: Option<String>,
    /// `off` or `when_needed`.
    pub transcode: String,
    /// `rfc4733`, `inband` or `info`.
    pub dtmf: String,
}

const SELECT_TENANTS: &str = "SELECT * FROM tenants ORDER BY name";

const SELECT_ROUTES: &str = "SELECT routes.*, tenants.name AS tenant FROM routes \
     JOIN tenants ON tenants.id = tenant_id ORDER BY tenant, prefix";

const SELECT_TRUNKS: &str = "SELECT trunks.*, tenants.name AS tenant FROM trunks \
     JOIN tenants ON tenants.id = tenant_id ORDER BY trunks.name";

const SELECT_MEMBERS: &str = "SELECT members.*, tenants.name AS tenant FROM members \
     JOIN tenants ON tenants.id = tenant_id ORDER BY tenant, extension";

const SELECT_CONFERENCES: &str = "SELECT conferences.*, tenants.name AS tenant FROM conferences \
     JOIN tenants ON tenants.id = tenant_id ORDER BY tenant, conferences.name";

const SELECT_GROUPS: &str = "SELECT ring_groups.*, tenants.name AS tenant FROM ring_groups \
     JOIN tenants ON tenants.id = tenant_id ORDER BY tenant, ring_groups.name";

/// What members have chosen themselves.
const SELECT_FORWARDS: &str = "SELECT event, target, tenants.name AS tenant, extension \
     FROM member_forwards JOIN members ON members.id = member_id \
     JOIN tenants ON tenants.id = tenant_id";

const SELECT_DIDS: &str = "SELECT dids.number, dids.record, dids.early_media, dids.channels_max, dids.origin, tenants.name AS tenant, \
     members.extension AS member FROM dids JOIN tenants ON tenants.id = dids.tenant_id \
     JOIN members ON members.id = member_id ORDER BY number";

async fn rows(
    connection: &mut SqliteConnection,
    select: &'static str,
) -> Result<Vec<SqliteRow>, StoreError> {
    sqlx::query(select)
        .fetch_all(connection)
        .await
        .map_err(translate)
}

pub(super) async fn members(
    connection: &mut SqliteConnection,
) -> Result<Vec<MemberRow>, StoreError> {
    let rows = rows(connection, SELECT_MEMBERS).await?;
    let row = |row: &SqliteRow| {
        Ok(MemberRow {
            tenant: column(row, "tenant")?,
            extension: column(row, "extension")?,
            name: column(row, "name")?,
            sip_user: column(row, "sip_user")?,
            forward_number: column(row, "forward_number")?,
            availability: column(row, "availability")?,
            availability_set_by: column(row, "availability_set_by")?,
            srtp: column(row, "srtp")?,
            media: column(row, "media")?,
            transcode: column(row, "transcode")?,
            dtmf: column(row, "dtmf")?,
        })
    };
    rows.iter().map(row).collect()
}

pub(super) async fn dids(connection: &mut SqliteConnection) -> Result<Vec<DidRow>, StoreError> {
    let rows = rows(connection, SELECT_DIDS).await?;
    let row = |row: &SqliteRow| {
        Ok(DidRow {
            number: column(row, "number")?,
            tenant: column(row, "tenant")?,
            member: column(row, "member")?,
            record: column(row, "record")?,
        })
    };
    rows.iter().map(row).collect()
}

pub(super) async fn trunks(connection: &mut SqliteConnection) -> Result<Vec<TrunkRow>, StoreError> {
    let rows = rows(connection, SELECT_TRUNKS).await?;
    let row = |row: &SqliteRow| {
        let networks = |name| -> Result<_, StoreError> {
            let text: &str = column(row, name)?;
            Ok(text.split_whitespace().map(str::to_owned).collect())
        };
        Ok(TrunkRow {
            name: column(row, "name")?,
            tenant: column(row, "tenant")?,
            sources: networks("sources")?,
            srtp: column(row, "srtp")?,
            media_from: networks("media_from")?,
            media: column(row, "media")?,
            transcode: column(row, "transcode")?,
            dtmf: column(row, "dtmf")?,
        })
    };
    rows.iter().map(row).collect()
}

/// Reads all routing data. The reads are one transaction, so that they fit each other.
pub(super) async fn snapshot(
    connection: &mut SqliteConnection,
) -> Result<RoutingSnapshot, StoreError> {
    let mut transaction = connection.begin().await.map_err(translate)?;
    let trunks = rows(&mut transaction, SELECT_TRUNKS).await?;
    let members = rows(&mut transaction, SELECT_MEMBERS).await?;
    let dids = rows(&mut transaction, SELECT_DIDS).await?;
    let conferences = rows(&mut transaction, SELECT_CONFERENCES).await?;
    let tenants = rows(&mut transaction, SELECT_TENANTS).await?;
    let routes = rows(&mut transaction, SELECT_ROUTES).await?;
    let groups = rows(&mut transaction, SELECT_GROUPS).await?;
    let forwards = rows(&mut transaction, SELECT_FORWARDS).await?;
    transaction.rollback().await.map_err(translate)?;
    let trunks = trunks.iter().map(|row| {
        Ok(TrunkRoute {
            name: named(row, "name")?,
            tenant: named(row, "tenant")?,
            sources: networks(row, "sources")?,
            srtp: named(row, "srtp")?,
            media_from: networks(row, "media_from")?,
            media: optional_named(row, "media")?,
            audio: party_audio(row)?,
            settings: settings(row, "settings")?,
        })
    });
    let mut channels = Vec::new();
    for row in &dids {
        if let Some(channels_max) = column(row, "channels_max")? {
            channels.push((named::<E164>(row, "number")?, channels_max));
        }
    }
    let outbound = tenants
        .iter()
        .map(|row| Ok((named::<Name>(row, "name")?, settings(row, "outbound")?)));
    let outbound = outbound.collect::<Result<_, StoreError>>()?;
    let routes = routes
        .iter()
        .map(route)
        .collect::<Result<_, StoreError>>()?;
    let mut recorded = Vec::new();
    for row in &dids {
        if named::<RecordCalls>(row, "record")? == RecordCalls::Always {
            recorded.push(named::<E164>(row, "number")?);
        }
    }
    let sounds = tenants.iter().map(|row| {
        let sounds = TenantSounds {
            hold_music: column(row, "hold_music")?,
            early_media: named(row, "early_media")?,
            ringback: column(row, "ringback")?,
        };
        Ok((named::<Name>(row, "name")?, sounds))
    });
    let mut early_media = Vec::new();
    for row in &dids {
        if let Some(choice) = optional_named::<EarlyMedia>(row, "early_media")? {
            early_media.push((named::<E164>(row, "number")?, choice));
        }
    }
    let mut members = members
        .iter()
        .map(member_route)
        .collect::<Result<Vec<_>, StoreError>>()?;
    for row in &forwards {
        let (tenant, extension): (Name, Extension) =
            (named(row, "tenant")?, named(row, "extension")?);
        let is_theirs =
            |member: &&mut MemberRoute| member.tenant == tenant && member.extension == extension;
        if let Some(member) = members.iter_mut().find(is_theirs) {
            let event = named::<ForwardEvent>(row, "event")?;
            member.forwards.set(event, column(row, "target")?);
        }
    }
    let dids = dids.iter().map(|row| {
        Ok((
            named::<E164>(row, "number")?,
            named::<Name>(row, "tenant")?,
            named::<Extension>(row, "member")?,
        ))
    });
    let snapshot = RoutingSnapshot::new(
        trunks.collect::<Result<_, StoreError>>()?,
        members,
        dids.collect::<Result<_, StoreError>>()?,
    )
    .with_conferences(
        conferences
            .iter()
            .map(conference_route)
            .collect::<Result<_, StoreError>>()?,
    )
    .with_groups(
        groups
            .iter()
            .map(group)
            .collect::<Result<_, StoreError>>()?,
    )
    .with_sounds(sounds.collect::<Result<_, StoreError>>()?)
    .with_outbound(outbound, routes)
    .with_channels(channels);
    let snapshot = recorded
        .iter()
        .fold(snapshot, RoutingSnapshot::with_recorded);
    Ok(early_media
        .iter()
        .fold(snapshot, |snapshot, (number, choice)| {
            snapshot.with_early_media(number, *choice)
        }))
}

fn group(row: &SqliteRow) -> Result<Group, StoreError> {
    fn items<T: FromStr>(row: &SqliteRow, name: &'static str) -> Result<Vec<T>, StoreError> {
        let text: &str = column(row, name)?;
        let parse = |item: &str| {
            let corrupt = || StoreError::Corrupt(format!("{name} {item:?} of a group"));
            item.parse().map_err(|_| corrupt())
        };
        text.split_whitespace().map(parse).collect()
    }
    let ring_secs: i64 = column(row, "ring_secs")?;
    Ok(Group {
        tenant: named(row, "tenant")?,
        name: named(row, "name")?,
        extension: optional_named(row, "extension")?,
        dids: items(row, "dids")?,
        members: items(row, "members")?,
        strategy: named(row, "strategy")?,
        ring_secs: u16::try_from(ring_secs)
            .map_err(|_| StoreError::Corrupt(format!("ring_secs {ring_secs} of a group")))?,
        skip_busy: column(row, "skip_busy")?,
    })
}

fn route(row: &SqliteRow) -> Result<Route, StoreError> {
    let trunks: &str = column(row, "trunks")?;
    let trunks = trunks.split_whitespace().map(|name| {
        name.parse()
            .map_err(|_| StoreError::Corrupt(format!("trunk {name:?} of a route")))
    });
    Ok(Route {
        tenant: named(row, "tenant")?,
        prefix: column(row, "prefix")?,
        trunks: trunks.collect::<Result<_, _>>()?,
    })
}

/// A column of settings, as [`to_json`] writes them.
fn settings<T: serde::de::DeserializeOwned>(
    row: &SqliteRow,
    name: &'static str,
) -> Result<T, StoreError> {
    from_json(column(row, name)?)
        .ok_or_else(|| StoreError::Corrupt(format!("{name} is not what an apply writes")))
}

fn conference_route(row: &SqliteRow) -> Result<ConferenceRoute, StoreError> {
    Ok(ConferenceRoute {
        tenant: named(row, "tenant")?,
        name: named(row, "name")?,
        did: named(row, "did")?,
        pin: optional_named(row, "pin")?,
        announce: column(row, "announce")?,
        join_muted: column(row, "join_muted")?,
        record: named(row, "record")?,
    })
}

fn party_audio(row: &SqliteRow) -> Result<PartyAudio, StoreError> {
    Ok(PartyAudio {
        transcode: named(row, "transcode")?,
        dtmf: named(row, "dtmf")?,
    })
}

fn networks(row: &SqliteRow, name: &'static str) -> Result<Vec<IpNet>, StoreError> {
    let text: &str = column(row, name)?;
    text.split_whitespace()
        .map(|network| {
            network
                .parse()
                .map_err(|_| StoreError::Corrupt(format!("{name} {network:?} of a trunk")))
        })
        .collect()
}

fn member_route(row: &SqliteRow) -> Result<MemberRoute, StoreError> {
    Ok(MemberRoute {
        tenant: named(row, "tenant")?,
        extension: named(row, "extension")?,
        name: column(row, "name")?,
        sip_user: named(row, "sip_user")?,
        credential: credential(row)?,
        forward_number: optional_named(row, "forward_number")?,
        forwards: forwards(row)?,
        availability: named(row, "availability")?,
        srtp: named(row, "srtp")?,
        media: optional_named(row, "media")?,
        audio: party_audio(row)?,
        outbound: settings(row, "outbound")?,
        numbers: Vec::new(),
    })
}

fn forwards(row: &SqliteRow) -> Result<Forwards, StoreError> {
    let mut forwards = Forwards::default();
    for event in ForwardEvent::ALL {
        forwards.set(event, column(row, event.key())?);
    }
    Ok(forwards)
}

fn credential(row: &SqliteRow) -> Result<Credential, StoreError> {
    Credential::from_hex(
        column(row, "realm")?,
        [
            column(row, "ha1_md5")?,
            column(row, "ha1_sha256")?,
            column(row, "ha1_sha512_256")?,
        ],
    )
    .ok_or_else(|| StoreError::Corrupt("a member's HA1 is not hexadecimal".to_owned()))
}

pub(super) async fn set_availability(
    connection: &mut SqliteConnection,
    tenant: Option<&Name>,
    extension: &Extension,
    availability: Availability,
) -> Result<String, StoreError> {
    let mut transaction = connection
        .begin_with("BEGIN IMMEDIATE")
        .await
        .map_err(translate)?;
    let (member, tenant) = find_member(&mut transaction, tenant, extension).await?;
    sqlx::query("UPDATE members SET availability = ?, availability_set_by = 'member' WHERE id = ?")
        .bind(availability.as_str())
        .bind(member)
        .execute(&mut *transaction)
        .await
        .map_err(translate)?;
    transaction.commit().await.map_err(translate)?;
    Ok(tenant)
}

pub(super) async fn set_forwards(
    connection: &mut SqliteConnection,
    tenant: Option<&Name>,
    extension: &Extension,
    forwards: &[(ForwardEvent, Option<String>)],
) -> Result<String, StoreError> {
    let mut transaction = connection
        .begin_with("BEGIN IMMEDIATE")
        .await
        .map_err(translate)?;
    let (member, tenant) = find_member(&mut transaction, tenant, extension).await?;
    for (event, target) in forwards {
        sqlx::query(
            "INSERT INTO member_forwards (member_id, event, target) VALUES (?, ?, ?) \
             ON CONFLICT (member_id, event) DO UPDATE SET target = excluded.target",
        )
        .bind(member)
        .bind(event.as_str())
        .bind(target.as_deref())
        .execute(&mut *transaction)
        .await
        .map_err(translate)?;
    }
    transaction.commit().await.map_err(translate)?;
    Ok(tenant)
}

/// A member's row and tenant.
async fn find_member(
    connection: &mut SqliteConnection,
    tenant: Option<&Name>,
    extension: &Extension,
) -> Result<(i64, String), StoreError> {
    let found = sqlx::query(
        "SELECT members.id, tenants.name AS tenant FROM members \
         JOIN tenants ON tenants.id = tenant_id \
         WHERE extension = ?1 AND (?2 IS NULL OR tenants.name = ?2) ORDER BY tenant",
    )
    .bind(extension.as_str())
    .bind(tenant.map(Name::as_str))
    .fetch_all(connection)
    .await
    .map_err(translate)?;
    let tenants: Vec<String> = found
        .iter()
        .map(|row| column(row, "tenant"))
        .collect::<Result<_, _>>()?;
    match (found.as_slice(), tenants.as_slice()) {
        ([], _) | (_, []) => Err(StoreError::NoSuchMember(extension.to_string())),
        ([row], [tenant]) => Ok((column(row, "id")?, tenant.clone())),
        _ => Err(StoreError::AmbiguousMember {
            extension: extension.to_string(),
            tenants: tenants.join(", "),
        }),
    }
}

/// Plans and, unless it is a dry run, carries out, in one transaction.
pub(super) async fn apply(
    connection: &mut SqliteConnection,
    site: &Site,
    options: ApplyOptions,
) -> Result<Plan, StoreError> {
    // A dry run only reads, so it does not stand in the way of a writer.
    let begin = if options.dry_run {
        "BEGIN DEFERRED"
    } else {
        "BEGIN IMMEDIATE"
    };
    let pins = pins::hashed(connection, site).await?;
    let mut transaction = connection.begin_with(begin).await.map_err(translate)?;
    let stored = stored(&mut transaction).await?;
    let plan = plan::plan(site, &pins, &stored, options.prune).map_err(StoreError::Conflict)?;
    if options.dry_run || plan.changes.is_empty() {
        transaction.rollback().await.map_err(translate)?;
    } else {
        carry_out(&mut transaction, &plan, site, &pins).await?;
        transaction.commit().await.map_err(translate)?;
    }
    Ok(plan)
}

async fn stored(connection: &mut SqliteConnection) -> Result<Stored, StoreError> {
    let mut stored = Stored::new();
    let mut add = |kind, key: String, row: &SqliteRow, fields, availability_is_members| {
        let origin = match column(row, "origin")? {
            "site" => Origin::Site,
            _ => Origin::Operator,
        };
        let object = StoredObject {
            origin,
            availability_is_members,
            fields,
        };
        stored.insert((kind, key), object);
        Ok::<(), StoreError>(())
    };
    for row in rows(connection, SELECT_TENANTS).await? {
        let key = column(&row, "name")?;
        let mut fields = plan::tenant_base_fields(
            column(&row, "hold_music")?,
            named(&row, "early_media")?,
            column(&row, "ringback")?,
        );
        plan::put_tenant_outbound(&mut fields, &settings(&row, "outbound")?);
        add(ObjectKind::Tenant, key, &row, fields, false)?;
    }
    for row in rows(connection, SELECT_TRUNKS).await? {
        let mut fields = Fields::from([
            ("tenant", column(&row, "tenant")?),
            ("sources", column(&row, "sources")?),
            (plan::SRTP, column(&row, "srtp")?),
        ]);
        let media_from: String = column(&row, "media_from")?;
        if !media_from.is_empty() {
            fields.insert(plan::MEDIA_FROM, media_from);
        }
        if let Some(media) = column(&row, "media")? {
            fields.insert(plan::MEDIA, media);
        }
        plan::put_audio(&mut fields, party_audio(&row)?);
        plan::put_trunk_settings(&mut fields, &settings(&row, "settings")?);
        add(
            ObjectKind::Trunk,
            column(&row, "name")?,
            &row,
            fields,
            false,
        )?;
    }
    for row in rows(connection, SELECT_MEMBERS).await? {
        let mut fields = plan::member_base_fields(
            column(&row, "name")?,
            column(&row, "sip_user")?,
            [
                column(&row, "realm")?,
                column(&row, "ha1_md5")?,
                column(&row, "ha1_sha256")?,
                column(&row, "ha1_sha512_256")?,
            ],
            named(&row, "availability")?,
        );
        fields.insert(plan::SRTP, column(&row, "srtp")?);
        if let Some(number) = column(&row, "forward_number")? {
            fields.insert("forward_number", number);
        }
        if let Some(media) = column(&row, "media")? {
            fields.insert(plan::MEDIA, media);
        }
        plan::put_forwards(&mut fields, &forwards(&row)?);
        plan::put_audio(&mut fields, party_audio(&row)?);
        plan::put_member_outbound(&mut fields, &settings(&row, "outbound")?);
        let tenant: &str = column(&row, "tenant")?;
        let extension: &str = column(&row, "extension")?;
        let is_members = column::<&str>(&row, "availability_set_by")? == "member";
        let key = format!("{tenant}/{extension}");
        add(ObjectKind::Member, key, &row, fields, is_members)?;
    }
    for row in rows(connection, SELECT_DIDS).await? {
        let mut fields = Fields::from([
            ("tenant", column(&row, "tenant")?),
            ("member", column(&row, "member")?),
        ]);
        let record: RecordCalls = named(&row, "record")?;
        if record != RecordCalls::default() {
            fields.insert(plan::RECORD, record.to_string());
        }
        plan::put_channels(&mut fields, column(&row, "channels_max")?);
        if let Some(early_media) = column(&row, "early_media")? {
            fields.insert(plan::EARLY_MEDIA, early_media);
        }
        add(
            ObjectKind::Did,
            column(&row, "number")?,
            &row,
            fields,
            false,
        )?;
    }
    for row in rows(connection, SELECT_CONFERENCES).await? {
        let route = conference_route(&row)?;
        let fields = plan::conference_base_fields(
            route.did.as_str(),
            route.pin.as_ref(),
            [route.announce, route.join_muted],
            route.record,
        );
        let key = format!("{}/{}", route.tenant, route.name);
        add(ObjectKind::Conference, key, &row, fields, false)?;
    }
    for row in rows(connection, SELECT_ROUTES).await? {
        let route = route(&row)?;
        let (kind, key) = plan::route_key(&route);
        add(kind, key, &row, plan::route_fields(&route), false)?;
    }
    for row in rows(connection, SELECT_GROUPS).await? {
        let group = group(&row)?;
        let (kind, key) = plan::group_key(&group);
        add(kind, key, &row, plan::group_fields(&group), false)?;
    }
    Ok(stored)
}

/// The order keeps every foreign key and unique value sound at each step: what is referred to is
/// made first and deleted last, and SIP users that change hands are parked in between.
async fn carry_out(
    connection: &mut SqliteConnection,
    plan: &Plan,
    site: &Site,
    pins: &Pins,
) -> Result<(), StoreError> {
    let actions: BTreeMap<ObjectKey, Action> = plan
        .changes
        .iter()
        .map(|change| ((change.object, change.key.clone()), change.action))
        .collect();
    let deleted = |kind: ObjectKind| {
        plan.changes
            .iter()
            .filter(move |change| change.object == kind && change.action == Action::Delete)
            .map(|change| change.key.as_str())
    };
    for tenant in &site.tenants {
        if actions.contains_key(&plan::tenant_key(tenant)) {
            put_tenant(connection, tenant).await?;
        }
    }
    for trunk in &site.trunks {
        if actions.contains_key(&plan::trunk_key(trunk)) {
            put_trunk(connection, trunk).await?;
        }
    }
    for ((kind, key), action) in &actions {
        if *kind == ObjectKind::Member && *action != Action::Create {
            park_sip_user(connection, key).await?;
        }
    }
    for member in &site.members {
        if actions.contains_key(&plan::member_key(member)) {
            put_member(connection, member).await?;
        }
    }
    for number in deleted(ObjectKind::Did) {
        execute(connection, "DELETE FROM dids WHERE number = ?", &[number]).await?;
    }
    for did in &site.dids {
        if actions.contains_key(&plan::did_key(did)) {
            put_did(connection, did).await?;
        }
    }
    for key in deleted(ObjectKind::Conference) {
        let (tenant, name) = member_key_parts(key);
        let delete = "DELETE FROM conferences WHERE name = ?2 \
             AND tenant_id = (SELECT id FROM tenants WHERE name = ?1)";
        execute(connection, delete, &[tenant, name]).await?;
    }
    // Numbers may change hands between conferences.
    for ((kind, key), action) in &actions {
        if *kind == ObjectKind::Conference && *action == Action::Update {
            let (tenant, name) = member_key_parts(key);
            let park = "UPDATE conferences SET did = '#' || id WHERE name = ?2 \
                 AND tenant_id = (SELECT id FROM tenants WHERE name = ?1)";
            execute(connection, park, &[tenant, name]).await?;
        }
    }
    for conference in &site.conferences {
        let key = plan::conference_key(conference);
        if actions.contains_key(&key) {
            put_conference(connection, conference, pins.get(&key)).await?;
        }
    }
    for key in deleted(ObjectKind::Group) {
        let (tenant, name) = member_key_parts(key);
        let delete = "DELETE FROM ring_groups WHERE name = ?2 \
             AND tenant_id = (SELECT id FROM tenants WHERE name = ?1)";
        execute(connection, delete, &[tenant, name]).await?;
    }
    // Extensions may change hands between groups.
    for ((kind, key), action) in &actions {
        if *kind == ObjectKind::Group && *action == Action::Update {
            let (tenant, name) = member_key_parts(key);
            let park = "UPDATE ring_groups SET extension = NULL WHERE name = ?2 \
                 AND tenant_id = (SELECT id FROM tenants WHERE name = ?1)";
            execute(connection, park, &[tenant, name]).await?;
        }
    }
    for key in deleted(ObjectKind::Route) {
        let (tenant, prefix) = member_key_parts(key);
        let delete = "DELETE FROM routes WHERE prefix = ?2 \
             AND tenant_id = (SELECT id FROM tenants WHERE name = ?1)";
        execute(connection, delete, &[tenant, prefix]).await?;
    }
    for route in &site.routes {
        if actions.contains_key(&plan::route_key(route)) {
            put_route(connection, route).await?;
        }
    }
    for group in &site.groups {
        if actions.contains_key(&plan::group_key(group)) {
            put_group(connection, group).await?;
        }
    }
    for key in deleted(ObjectKind::Member) {
        let (tenant, extension) = member_key_parts(key);
        let delete = "DELETE FROM members WHERE extension = ?2 \
             AND tenant_id = (SELECT id FROM tenants WHERE name = ?1)";
        execute(connection, delete, &[tenant, extension]).await?;
    }
    for name in deleted(ObjectKind::Trunk) {
        execute(connection, "DELETE FROM trunks WHERE name = ?", &[name]).await?;
    }
    for name in deleted(ObjectKind::Tenant) {
        execute(connection, "DELETE FROM tenants WHERE name = ?", &[name]).await?;
    }
    Ok(())
}

/// Neither a tenant's name nor an extension may hold the separator.
fn member_key_parts(key: &str) -> (&str, &str) {
    key.split_once('/').unwrap_or((key, ""))
}

async fn execute(
    connection: &mut SqliteConnection,
    statement: &'static str,
    arguments: &[&str],
) -> Result<(), StoreError> {
    let mut query = sqlx::query(statement);
    for argument in arguments {
        query = query.bind(*argument);
    }
    query.execute(connection).await.map_err(translate)?;
    Ok(())
}

async fn put_tenant(connection: &mut SqliteConnection, tenant: &Tenant) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO tenants (name, hold_music, early_media, ringback, outbound, origin) \
         VALUES (?, ?, ?, ?, ?, 'site') ON CONFLICT (name) DO UPDATE SET \
         hold_music = excluded.hold_music, early_media = excluded.early_media, \
         ringback = excluded.ringback, outbound = excluded.outbound",
    )
    .bind(tenant.name.as_str())
    .bind(tenant.hold_music.as_deref())
    .bind(tenant.early_media.as_str())
    .bind(tenant.ringback.as_deref())
    .bind(to_json(&tenant.outbound))
    .execute(connection)
    .await
    .map_err(translate)?;
    Ok(())
}

async fn put_route(connection: &mut SqliteConnection, route: &Route) -> Result<(), StoreError> {
    let put = "INSERT INTO routes (tenant_id, prefix, trunks, origin) \
         VALUES ((SELECT id FROM tenants WHERE name = ?), ?, ?, 'site') \
         ON CONFLICT (tenant_id, prefix) DO UPDATE SET trunks = excluded.trunks";
    let trunks = plan::names_text(&route.trunks);
    execute(
        connection,
        put,
        &[route.tenant.as_str(), &route.prefix, &trunks],
    )
    .await
}

async fn put_conference(
    connection: &mut SqliteConnection,
    conference: &Conference,
    pin: Option<&PinHash>,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO conferences (tenant_id, name, did, pin, announce, join_muted, record, \
         origin) VALUES ((SELECT id FROM tenants WHERE name = ?), ?, ?, ?, ?, ?, ?, 'site') \
         ON CONFLICT (tenant_id, name) DO UPDATE SET did = excluded.did, pin = excluded.pin, \
         announce = excluded.announce, join_muted = excluded.join_muted, \
         record = excluded.record",
    )
    .bind(conference.tenant.as_str())
    .bind(conference.name.as_str())
    .bind(conference.did.as_str())
    .bind(pin.map(ToString::to_string))
    .bind(conference.announce)
    .bind(conference.join_muted)
    .bind(conference.record.as_str())
    .execute(connection)
    .await
    .map_err(translate)?;
    Ok(())
}

async fn put_group(connection: &mut SqliteConnection, group: &Group) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO ring_groups (tenant_id, name, extension, dids, members, strategy, ring_secs, \
         skip_busy, origin) \
         VALUES ((SELECT id FROM tenants WHERE name = ?), ?, ?, ?, ?, ?, ?, ?, 'site') \
         ON CONFLICT (tenant_id, name) DO UPDATE SET extension = excluded.extension, \
         dids = excluded.dids, members = excluded.members, strategy = excluded.strategy, \
         ring_secs = excluded.ring_secs, skip_busy = excluded.skip_busy",
    )
    .bind(group.tenant.as_str())
    .bind(group.name.as_str())
    .bind(group.extension.as_ref().map(Extension::as_str))
    .bind(plan::dids_text(&group.dids))
    .bind(plan::list_text(&group.members))
    .bind(group.strategy.as_str())
    .bind(i64::from(group.ring_secs))
    .bind(group.skip_busy)
    .execute(connection)
    .await
    .map_err(translate)?;
    Ok(())
}

async fn put_trunk(connection: &mut SqliteConnection, trunk: &Trunk) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO trunks (tenant_id, name, sources, srtp, media_from, media, transcode, dtmf, \
         settings, origin) \
         VALUES ((SELECT id FROM tenants WHERE name = ?), ?, ?, ?, ?, ?, ?, ?, ?, 'site') \
         ON CONFLICT (name) DO UPDATE SET tenant_id = excluded.tenant_id, \
         sources = excluded.sources, srtp = excluded.srtp, media_from = excluded.media_from, \
         media = excluded.media, transcode = excluded.transcode, dtmf = excluded.dtmf, \
         settings = excluded.settings",
    )
    .bind(trunk.tenant.as_str())
    .bind(trunk.name.as_str())
    .bind(plan::networks_text(&trunk.sources))
    .bind(trunk.srtp.as_str())
    .bind(plan::networks_text(&trunk.media_from))
    .bind(trunk.media.as_ref().map(InterfaceName::as_str))
    .bind(trunk.audio.transcode.as_str())
    .bind(trunk.audio.dtmf.as_str())
    .bind(to_json(&trunk.settings))
    .execute(connection)
    .await
    .map_err(translate)?;
    Ok(())
}

/// Gives the member a SIP user that no site file can state until its own is written.
async fn park_sip_user(connection: &mut SqliteConnection, key: &str) -> Result<(), StoreError> {
    let (tenant, extension) = member_key_parts(key);
    let park = "UPDATE members SET sip_user = '#' || id WHERE extension = ?2 \
         AND tenant_id = (SELECT id FROM tenants WHERE name = ?1)";
    execute(connection, park, &[tenant, extension]).await
}

async fn put_member(connection: &mut SqliteConnection, member: &Member) -> Result<(), StoreError> {
    let [md5, sha256, sha512_256] = member.credential.hashes_hex();
    sqlx::query(
        "INSERT INTO members (tenant_id, extension, name, sip_user, realm, ha1_md5, ha1_sha256, \
         ha1_sha512_256, forward_number, availability, srtp, media, transcode, dtmf, outbound, \
         forward_always, forward_busy, forward_no_answer, forward_offline, availability_set_by, \
         origin) \
         VALUES ((SELECT id FROM tenants WHERE name = ?), ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, \
         ?, ?, ?, ?, ?, 'site', 'site') \
         ON CONFLICT (tenant_id, extension) DO UPDATE SET name = excluded.name, \
         sip_user = excluded.sip_user, realm = excluded.realm, ha1_md5 = excluded.ha1_md5, \
         ha1_sha256 = excluded.ha1_sha256, ha1_sha512_256 = excluded.ha1_sha512_256, \
         forward_number = excluded.forward_number, \
         srtp = excluded.srtp, media = excluded.media, transcode = excluded.transcode, \
         dtmf = excluded.dtmf, outbound = excluded.outbound, \
         forward_always = excluded.forward_always, \
         forward_busy = excluded.forward_busy, forward_no_answer = excluded.forward_no_answer, \
         forward_offline = excluded.forward_offline, \
         availability = CASE availability_set_by WHEN 'member' THEN availability \
         ELSE excluded.availability END",
    )
    .bind(member.tenant.as_str())
    .bind(member.extension.as_str())
    .bind(&member.name)
    .bind(member.sip_user.as_str())
    .bind(member.credential.realm())
    .bind(md5)
    .bind(sha256)
    .bind(sha512_256)
    .bind(member.forward_number.as_ref().map(E164::as_str))
    .bind(member.availability.as_str())
    .bind(member.srtp.as_str())
    .bind(member.media.as_ref().map(InterfaceName::as_str))
    .bind(member.audio.transcode.as_str())
    .bind(member.audio.dtmf.as_str())
    .bind(to_json(&member.outbound))
    .bind(member.forwards.target(ForwardEvent::Always))
    .bind(member.forwards.target(ForwardEvent::Busy))
    .bind(member.forwards.target(ForwardEvent::NoAnswer))
    .bind(member.forwards.target(ForwardEvent::Offline))
    .execute(connection)
    .await
    .map_err(translate)?;
    Ok(())
}

async fn put_did(connection: &mut SqliteConnection, did: &Did) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO dids (number, tenant_id, member_id, record, channels_max, early_media, origin) \
         SELECT ?1, tenants.id, members.id, ?4, ?5, ?6, 'site' FROM members \
         JOIN tenants ON tenants.id = tenant_id WHERE tenants.name = ?2 AND extension = ?3 \
         ON CONFLICT (number) DO UPDATE SET tenant_id = excluded.tenant_id, \
         member_id = excluded.member_id, record = excluded.record, \
         channels_max = excluded.channels_max, early_media = excluded.early_media",
    )
    .bind(did.number.as_str())
    .bind(did.tenant.as_str())
    .bind(did.member.as_str())
    .bind(did.record.as_str())
    .bind(did.channels_max)
    .bind(did.early_media.map(EarlyMedia::as_str))
    .execute(connection)
    .await
    .map_err(translate)?;
    Ok(())
}
