//! What answers of the proxy's own are made to look like (`LocalReplyConfig`).

use super::place::{Decoded, Place, fields};
use super::{access_log, headers, log_filter, value};
use envoy_types::pb::envoy::config::core::v3::SubstitutionFormatString;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as proto;
use envoy_types::pb::google::protobuf::UInt32Value;
use model::header::HeaderEdits;
use model::local_reply::{BodyFormat, LocalReplies, ReplyMapper};

pub(crate) fn decode(place: &Place<'_>, config: &Option<proto::LocalReplyConfig>) -> Decoded<LocalReplies> {
    let Some(config) = config else { return Ok(LocalReplies::default()) };
    fields!(place, config => proto::LocalReplyConfig { honoured: mappers, body_format; ignored: ; refused: ; });
    let mapper = |(i, mapper)| decode_mapper(&place.item("mappers", i), mapper);
    Ok(LocalReplies {
        mappers: mappers.iter().enumerate().map(mapper).collect::<Decoded<_>>()?,
        format: decode_format(&place.field("body_format"), body_format)?,
    })
}

fn decode_mapper(place: &Place<'_>, mapper: &proto::ResponseMapper) -> Decoded<ReplyMapper> {
    fields!(place, mapper => proto::ResponseMapper {
        honoured: filter, status_code, body, body_format_override, headers_to_add;
        ignored: ;
        refused: ;
    });
    let filter = filter.as_ref().ok_or_else(|| place.field("filter").error("this field is required"))?;
    let status = status_code.map(|status| match u16::try_from(status.value) {
        Ok(status @ 200..=599) => Ok(status),
        _ => Err(place.field("status_code").error(format_args!("{} is no status", status.value))),
    });
    let edits = headers::decode_edits(place, ["headers_to_add", ""], headers_to_add, &[])?;
    Ok(ReplyMapper {
        filter: log_filter::decode(&place.field("filter"), filter)?,
        status: status.transpose()?,
        body: value::decode_data(&place.field("body"), body)?,
        format: decode_format(&place.field("body_format_override"), body_format_override)?,
        headers: edits.add,
    })
}

pub(crate) fn decode_format(
    place: &Place<'_>,
    format: &Option<SubstitutionFormatString>,
) -> Decoded<Option<BodyFormat>> {
    let Some(written) = format else { return Ok(None) };
    Ok(Some(BodyFormat {
        format: access_log::decode_format(place, written)?,
        content_type: written.content_type.clone(),
        omit_empty: written.omit_empty_values,
    }))
}

pub(crate) fn encode(replies: &LocalReplies) -> Option<proto::LocalReplyConfig> {
    (!replies.is_empty()).then(|| proto::LocalReplyConfig {
        mappers: replies.mappers.iter().map(encode_mapper).collect(),
        body_format: replies.format.as_ref().map(encode_format),
    })
}

fn encode_mapper(mapper: &ReplyMapper) -> proto::ResponseMapper {
    let edits = HeaderEdits { remove: Vec::new(), add: mapper.headers.clone() };
    proto::ResponseMapper {
        filter: Some(log_filter::encode(&mapper.filter)),
        status_code: mapper.status.map(|status| UInt32Value { value: status.into() }),
        body: mapper.body.as_deref().and_then(value::encode_data),
        body_format_override: mapper.format.as_ref().map(encode_format),
        headers_to_add: headers::encode_edits(&edits).0,
    }
}

pub(crate) fn encode_format(format: &BodyFormat) -> SubstitutionFormatString {
    let written = access_log::encode_format(&format.format, format.omit_empty);
    SubstitutionFormatString { content_type: format.content_type.clone(), ..written }
}
