//! Filters with little to say: `csrf`, `buffer`, `stateful_session`, `health_check`, `set_metadata`.

use super::place::{Decoded, Place, fields};
use super::value::{self, type_name, unpack};
use super::{condition, headers, text, wire_order};
use envoy_types::pb::envoy::config::core::v3::TypedExtensionConfig;
use envoy_types::pb::envoy::extensions::filters::http::buffer::v3 as buffer_proto;
use envoy_types::pb::envoy::extensions::filters::http::csrf::v3::CsrfPolicy;
use envoy_types::pb::envoy::extensions::filters::http::health_check::v3::HealthCheck;
use envoy_types::pb::envoy::extensions::filters::http::set_metadata::v3 as notes_proto;
use envoy_types::pb::envoy::extensions::filters::http::stateful_session::v3 as session_proto;
use envoy_types::pb::envoy::extensions::http::stateful_session::cookie::v3::CookieBasedSessionState;
use envoy_types::pb::envoy::extensions::http::stateful_session::header::v3::HeaderBasedSessionState;
use envoy_types::pb::envoy::r#type::http::v3 as cookie_proto;
use envoy_types::pb::envoy::r#type::v3::Percent;
use envoy_types::pb::google::protobuf::{Any, UInt32Value};
use model::affinity::AffinityCookie;
use model::csrf::Csrf;
use model::filter::{Note, Setting};
use model::health_answer::HealthAnswer;
use model::session::{Session, SessionCarrier};
use prost::{Message, Name};

pub(crate) const CSRF: &str = "envoy.filters.http.csrf";
pub(crate) const CSRF_TYPE: &str = "envoy.extensions.filters.http.csrf.v3.CsrfPolicy";
pub(crate) const BUFFER: &str = "envoy.filters.http.buffer";
pub(crate) const BUFFER_TYPE: &str = "envoy.extensions.filters.http.buffer.v3.Buffer";
pub(crate) const BUFFER_ROUTE_TYPE: &str = "envoy.extensions.filters.http.buffer.v3.BufferPerRoute";
pub(crate) const SESSION: &str = "envoy.filters.http.stateful_session";
pub(crate) const SESSION_TYPE: &str = "envoy.extensions.filters.http.stateful_session.v3.StatefulSession";
pub(crate) const SESSION_ROUTE_TYPE: &str =
    "envoy.extensions.filters.http.stateful_session.v3.StatefulSessionPerRoute";
pub(crate) const HEALTH: &str = "envoy.filters.http.health_check";
pub(crate) const HEALTH_TYPE: &str = "envoy.extensions.filters.http.health_check.v3.HealthCheck";
pub(crate) const NOTES: &str = "envoy.filters.http.set_metadata";
pub(crate) const NOTES_TYPE: &str = "envoy.extensions.filters.http.set_metadata.v3.Config";
const COOKIE_TYPE: &str = "envoy.extensions.http.stateful_session.cookie.v3.CookieBasedSessionState";
const HEADER_TYPE: &str = "envoy.extensions.http.stateful_session.header.v3.HeaderBasedSessionState";

pub(crate) fn decode_csrf(place: &Place<'_>, policy: &CsrfPolicy) -> Decoded<Csrf> {
    fields!(place, policy => CsrfPolicy {
        honoured: filter_enabled, additional_origins;
        // Shadows only count.
        ignored: shadow_enabled;
        refused: ;
    });
    let place_of_share = place.field("filter_enabled");
    let share = filter_enabled.as_ref().ok_or_else(|| place_of_share.error("this field is required"))?;
    let origins = additional_origins.iter().enumerate();
    let origins = origins.map(|(i, m)| text::decode_string_match(&place.item("additional_origins", i), m));
    Ok(Csrf {
        share: condition::decode_fraction(&place_of_share, share)?,
        origins: origins.collect::<Decoded<_>>()?,
    })
}

pub(crate) fn encode_csrf(csrf: &Csrf) -> CsrfPolicy {
    CsrfPolicy {
        filter_enabled: Some(condition::encode_fraction(csrf.share)),
        shadow_enabled: None,
        additional_origins: csrf.origins.iter().map(text::encode_string_match).collect(),
    }
}

pub(crate) fn decode_buffer(place: &Place<'_>, buffer: &buffer_proto::Buffer) -> Decoded<u32> {
    match buffer.max_request_bytes.map(|max| max.value) {
        Some(max) if max > 0 => Ok(max),
        _ => Err(place.field("max_request_bytes").error("a number above zero is required")),
    }
}

pub(crate) fn encode_buffer(max: u32) -> buffer_proto::Buffer {
    buffer_proto::Buffer { max_request_bytes: Some(UInt32Value { value: max }) }
}

pub(crate) fn decode_buffer_setting(
    place: &Place<'_>,
    setting: &buffer_proto::BufferPerRoute,
) -> Decoded<Setting<u32>> {
    use buffer_proto::buffer_per_route::Override;
    match &setting.r#override {
        Some(Override::Disabled(true)) => Ok(Setting::Disabled),
        Some(Override::Buffer(buffer)) => decode_buffer(&place.field("buffer"), buffer).map(Setting::Use),
        Some(Override::Disabled(false)) | None => Err(place.error("nothing is said")),
    }
}

pub(crate) fn encode_buffer_setting(max: u32) -> buffer_proto::BufferPerRoute {
    use buffer_proto::buffer_per_route::Override;
    buffer_proto::BufferPerRoute { r#override: Some(Override::Buffer(encode_buffer(max))) }
}

/// `None` where only routes say anything.
pub(crate) fn decode_session(
    place: &Place<'_>,
    filter: &session_proto::StatefulSession,
) -> Decoded<Option<Session>> {
    fields!(place, filter => session_proto::StatefulSession {
        honoured: session_state, strict, status_on_strict_destination_not_found;
        ignored: stat_prefix;
        refused: ;
    });
    let place = place.field("session_state");
    let Some(TypedExtensionConfig { name, typed_config }) = session_state else { return Ok(None) };
    let any = typed_config.as_ref().ok_or_else(|| place.field("typed_config").error("it is required"))?;
    let config = place.field("typed_config");
    let carrier = match type_name(any) {
        COOKIE_TYPE => {
            let state: CookieBasedSessionState = unpack(&config, any)?;
            let cookie = state.cookie.as_ref();
            let cookie = cookie.ok_or_else(|| config.field("cookie").error("this field is required"))?;
            SessionCarrier::Cookie(decode_cookie(&config.field("cookie"), cookie)?)
        }
        HEADER_TYPE => {
            let state: HeaderBasedSessionState = unpack(&config, any)?;
            SessionCarrier::Header(headers::decode_plain_name(&config.field("name"), &state.name)?)
        }
        _ => return Err(place.unsupported(format_args!("session state `{name}`"))),
    };
    let refusal_status = match u16::try_from(*status_on_strict_destination_not_found) {
        Ok(0) => 503,
        Ok(status @ 200..=599) => status,
        _ => return Err(place.error("the status of refusals is none from 200 to 599")),
    };
    Ok(Some(Session { carrier, strict: *strict, refusal_status }))
}

fn decode_cookie(place: &Place<'_>, cookie: &cookie_proto::Cookie) -> Decoded<AffinityCookie> {
    let ttl = cookie.ttl.as_ref().map(|ttl| value::decode_duration(&place.field("ttl"), ttl));
    for text in [&cookie.name, &cookie.path] {
        if text.contains(|c: char| c == ';' || c.is_control()) {
            return Err(place.error(format_args!("`{text}` cannot be part of a cookie")));
        }
    }
    let attribute = |a: &cookie_proto::CookieAttribute| (a.name.clone(), a.value.clone());
    Ok(AffinityCookie {
        name: cookie.name.clone(),
        ttl: ttl.transpose()?,
        path: cookie.path.clone(),
        attributes: cookie.attributes.iter().map(attribute).collect(),
    })
}

pub(crate) fn encode_session(session: Option<&Session>) -> session_proto::StatefulSession {
    let Some(session) = session else { return session_proto::StatefulSession::default() };
    let state = match &session.carrier {
        SessionCarrier::Header(name) => value::extension(
            "envoy.http.stateful_session.header",
            value::pack(&HeaderBasedSessionState { name: name.as_str().to_owned() }),
        ),
        SessionCarrier::Cookie(cookie) => {
            let attribute = |(name, value): &(String, String)| cookie_proto::CookieAttribute {
                name: name.clone(),
                value: value.clone(),
            };
            let cookie = cookie_proto::Cookie {
                name: cookie.name.clone(),
                ttl: cookie.ttl.map(value::encode_duration),
                path: cookie.path.clone(),
                attributes: cookie.attributes.iter().map(attribute).collect(),
            };
            let state = CookieBasedSessionState { cookie: Some(cookie) };
            value::extension("envoy.http.stateful_session.cookie", value::pack(&state))
        }
    };
    session_proto::StatefulSession {
        session_state: Some(state),
        strict: session.strict,
        status_on_strict_destination_not_found: match session.refusal_status {
            503 => 0,
            status => status.into(),
        },
        ..Default::default()
    }
}

pub(crate) fn decode_session_setting(
    place: &Place<'_>,
    setting: &session_proto::StatefulSessionPerRoute,
) -> Decoded<Setting<Session>> {
    use session_proto::stateful_session_per_route::Override;
    match &setting.r#override {
        Some(Override::Disabled(true)) => Ok(Setting::Disabled),
        Some(Override::StatefulSession(session)) => {
            let session = decode_session(&place.field("stateful_session"), session)?;
            Ok(session.map_or(Setting::Disabled, Setting::Use))
        }
        Some(Override::Disabled(false)) | None => Err(place.error("nothing is said")),
    }
}

pub(crate) fn encode_session_setting(session: &Session) -> session_proto::StatefulSessionPerRoute {
    use session_proto::stateful_session_per_route::Override;
    let session = Override::StatefulSession(encode_session(Some(session)));
    session_proto::StatefulSessionPerRoute { r#override: Some(session) }
}

pub(crate) fn decode_health(place: &Place<'_>, filter: &HealthCheck) -> Decoded<HealthAnswer> {
    fields!(place, filter => HealthCheck {
        honoured: pass_through_mode, headers, cluster_min_healthy_percentages;
        ignored: ;
        refused: cache_time;
    });
    match pass_through_mode {
        None => return Err(place.field("pass_through_mode").error("this field is required")),
        Some(passes) => place.refuse("pass_through_mode", &passes.value)?,
    }
    let header = |(i, m)| headers::decode_match(&place.item("headers", i), m);
    let mut clusters: Vec<(String, f64)> =
        cluster_min_healthy_percentages.iter().map(|(name, share)| (name.clone(), share.value)).collect();
    clusters.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(HealthAnswer { headers: headers.iter().enumerate().map(header).collect::<Decoded<_>>()?, clusters })
}

pub(crate) fn encode_health(health: &HealthAnswer) -> HealthCheck {
    HealthCheck {
        pass_through_mode: value::encode_flag(false),
        cache_time: None,
        cluster_min_healthy_percentages: health
            .clusters
            .iter()
            .map(|(name, share)| (name.clone(), Percent { value: *share }))
            .collect(),
        headers: health.headers.iter().map(headers::encode_match).collect(),
    }
}

pub(crate) fn decode_notes(place: &Place<'_>, filter: &notes_proto::Config) -> Decoded<Vec<Note>> {
    let mut notes = Vec::new();
    // The old form joins what is there.
    if let Some(value) = &filter.value {
        let fields = value::decode_struct(value);
        notes.push(Note { namespace: filter.metadata_namespace.clone(), fields, joins: true });
    }
    for (i, note) in filter.metadata.iter().enumerate() {
        let place = place.item("metadata", i);
        fields!(place, note => notes_proto::Metadata {
            honoured: metadata_namespace, allow_overwrite, value;
            ignored: ;
            refused: typed_value;
        });
        let fields = value.as_ref().map(value::decode_struct).unwrap_or_default();
        notes.push(Note { namespace: metadata_namespace.clone(), fields, joins: *allow_overwrite });
    }
    Ok(notes)
}

/// All of them in one filter, if there are any.
pub(crate) fn encode_notes(notes: &[Note]) -> Option<Any> {
    let note = |note: &Note| notes_proto::Metadata {
        metadata_namespace: note.namespace.clone(),
        allow_overwrite: note.joins,
        value: Some(value::encode_struct(&note.fields)),
        typed_value: None,
    };
    let config = notes_proto::Config { metadata: notes.iter().map(note).collect(), ..Default::default() };
    (!notes.is_empty()).then(|| Any {
        type_url: notes_proto::Config::type_url(),
        value: wire_order::ordered(&config.encode_to_vec(), &wire_order::NOTES),
    })
}
