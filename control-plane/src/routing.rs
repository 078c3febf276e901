//! Who answers: a pure decision over the [`RoutingSnapshot`].
//!
//! | caller | dials | decision |
//! |---|---|---|
//! | trunk | DID of the trunk's tenant | its member or group |
//! | trunk | anything else | 404 |
//! | member | extension or DID of the own tenant | that member or group |
//! | member | anything else | 404 |
//! | either | the number of one of the tenant's conferences | that conference |
//!
//! A member found is rung only when online: offline is 480, busy is 486, unless its calls then go
//! elsewhere ([`Plan`]). Whether a phone is registered is asked afterwards, by the caller of this
//! module.

use std::sync::Arc;

use trunkline_edge_api::{SourceNetwork, SourceNetworks};
use trunkline_sip::offer_answer::SrtpPolicy;

use crate::cdr::{CallDirection, CallResult};
use crate::party::{EarlyMedia, PartyAudio, RecordCalls};
use crate::site::{Availability, E164, Extension, ForwardEvent, InterfaceName, Name};
use crate::store::{ConferenceRoute, MemberRoute, RoutingSnapshot, TrunkRoute};

mod plan;

pub use plan::{Destination, Diversion, FORWARDS_MAX, Plan, PlannedRound, Target, Turns};

/// Who is calling, after admission: a trunk by its source address, a member by digest.
#[derive(Debug, Clone)]
pub enum Origin {
    /// A carrier.
    Trunk(Arc<TrunkRoute>),
    /// A member's phone.
    Member(Arc<MemberRoute>),
}

impl Origin {
    /// Whose numbers may be reached from here.
    #[must_use]
    pub fn tenant(&self) -> &Name {
        match self {
            Origin::Trunk(trunk) => &trunk.tenant,
            Origin::Member(member) => &member.tenant,
        }
    }

    /// Whether the caller's media is protected.
    #[must_use]
    pub fn srtp(&self) -> SrtpPolicy {
        match self {
            Origin::Trunk(trunk) => trunk.srtp,
            Origin::Member(member) => member.srtp,
        }
    }

    /// Networks that the caller's media may come from beside the address in its SDP; `None` when
    /// none are listed.
    #[must_use]
    pub fn media_from(&self) -> Option<SourceNetworks> {
        let Origin::Trunk(trunk) = self else {
            return None;
        };
        let networks: Vec<SourceNetwork> = trunk
            .media_from
            .iter()
            .filter_map(|network| SourceNetwork::new(network.network(), network.prefix_len()))
            .collect();
        SourceNetworks::new(&networks)
    }

    /// Our media address towards the caller, where the site file names one.
    #[must_use]
    pub fn media(&self) -> Option<&InterfaceName> {
        match self {
            Origin::Trunk(trunk) => trunk.media.as_ref(),
            Origin::Member(member) => member.media.as_ref(),
        }
    }

    /// How the caller's audio and digits are treated.
    #[must_use]
    pub fn audio(&self) -> PartyAudio {
        match self {
            Origin::Trunk(trunk) => trunk.audio,
            Origin::Member(member) => member.audio,
        }
    }

    /// For the call record.
    #[must_use]
    pub fn direction(&self) -> CallDirection {
        match self {
            Origin::Trunk(_) => CallDirection::Inbound,
            Origin::Member(_) => CallDirection::Internal,
        }
    }

    /// For the call record.
    #[must_use]
    pub fn trunk_name(&self) -> Option<&Name> {
        match self {
            Origin::Trunk(trunk) => Some(&trunk.name),
            Origin::Member(_) => None,
        }
    }
}

/// A call that may be put through.
#[derive(Debug, Clone)]
pub struct Route {
    /// Who is to be rung.
    pub destination: Destination,
    /// The DID that was dialled; `None` for an extension.
    pub did: Option<E164>,
    /// Whether the call is recorded.
    pub record: RecordCalls,
    /// What the number's callers hear before the answer; `None`: as the tenant says.
    pub early_media: Option<EarlyMedia>,
}

/// A call that ends before it begins.
#[derive(Debug, Clone)]
pub struct Refused {
    /// SIP status owed to the caller.
    pub status: u16,
    /// For the call record.
    pub result: CallResult,
    /// Who would have been rung, when that much is known.
    pub route: Option<Route>,
}

/// The conference whose number `called` is; `None` when it is another number, or one of another
/// tenant.
#[must_use]
pub fn conference(
    snapshot: &RoutingSnapshot,
    origin: &Origin,
    called: Option<&str>,
) -> Option<Arc<ConferenceRoute>> {
    let number = trunkline_sip::identity::e164(called?)?.parse().ok()?;
    let conference = snapshot.conference(&number)?;
    (conference.tenant == *origin.tenant()).then(|| Arc::clone(conference))
}

/// Decides who answers `called`, a number or extension as it was dialled; `None` when the request
/// names nobody.
///
/// # Errors
/// [`Refused`] with the status that the caller is owed.
pub fn route(
    snapshot: &RoutingSnapshot,
    origin: &Origin,
    called: Option<&str>,
) -> Result<Route, Refused> {
    let route = called.and_then(|called| match origin {
        Origin::Trunk(trunk) => find_did(snapshot, &trunk.tenant, called),
        Origin::Member(member) => find_extension(snapshot, &member.tenant, called)
            .or_else(|| find_did(snapshot, &member.tenant, called)),
    });
    let Some(route) = route else {
        return Err(Refused {
            status: 404,
            result: CallResult::UnknownNumber,
            route: None,
        });
    };
    let Some((status, result)) = unavailable(&route.destination) else {
        return Ok(route);
    };
    Err(Refused {
        status,
        result,
        route: Some(route),
    })
}

/// Why nobody is rung for a member who does not want to be, and forwards nowhere.
fn unavailable(destination: &Destination) -> Option<(u16, CallResult)> {
    let Destination::Member(member) = destination else {
        return None;
    };
    let forwards = |event| member.forwards.target(event).is_some();
    if forwards(ForwardEvent::Always) {
        return None;
    }
    match member.availability {
        Availability::Busy if !forwards(ForwardEvent::Busy) => Some((486, CallResult::Busy)),
        Availability::Offline if !forwards(ForwardEvent::Offline) => {
            Some((480, CallResult::Offline))
        }
        _ => None,
    }
}

fn find_extension(snapshot: &RoutingSnapshot, tenant: &Name, called: &str) -> Option<Route> {
    let extension: Extension = called.parse().ok()?;
    let member = snapshot.member(tenant, &extension);
    let destination = match member {
        Some(member) => Destination::Member(Arc::clone(member)),
        None => Destination::Group(Arc::clone(snapshot.group(tenant, &extension)?)),
    };
    Some(Route {
        destination,
        did: None,
        record: RecordCalls::Never,
        early_media: None,
    })
}

/// Numbers of another tenant are not found: nothing crosses between tenants.
fn find_did(snapshot: &RoutingSnapshot, tenant: &Name, called: &str) -> Option<Route> {
    let number = trunkline_sip::identity::e164(called)?.parse().ok()?;
    let group = snapshot.group_did(&number);
    if let Some(group) = group.filter(|group| group.tenant == *tenant) {
        return Some(Route {
            destination: Destination::Group(Arc::clone(group)),
            did: Some(number),
            record: RecordCalls::Never,
            early_media: None,
        });
    }
    let did = snapshot.did(&number).filter(|did| did.tenant == *tenant)?;
    Some(Route {
        destination: Destination::Member(Arc::clone(&did.member)),
        did: Some(number),
        record: did.record,
        early_media: did.early_media,
    })
}

/// Who answers an extension or number of the tenant's own.
#[must_use]
pub fn find_destination(
    snapshot: &RoutingSnapshot,
    tenant: &Name,
    called: &str,
) -> Option<Destination> {
    let route = find_extension(snapshot, tenant, called);
    let route = route.or_else(|| find_did(snapshot, tenant, called));
    route.map(|route| route.destination)
}

#[cfg(test)]
mod tests;
