//! Paths put together anew from a template (`path_rewrite_policy`).

use super::place::{Decoded, Place};
use super::value;
use envoy_types::pb::envoy::config::core::v3::TypedExtensionConfig;
use envoy_types::pb::envoy::extensions::path::rewrite::uri_template::v3::UriTemplateRewriteConfig;
use model::route::PathRewrite;
use model::uri_template::UriRewrite;

const NAME: &str = "envoy.path.rewrite.uri_template.uri_template_rewriter";

pub(crate) fn decode_policy(place: &Place<'_>, policy: &TypedExtensionConfig) -> Decoded<PathRewrite> {
    let any = policy.typed_config.as_ref();
    let any = any.filter(|any| value::type_name(any).ends_with(".UriTemplateRewriteConfig"));
    let Some(any) = any else {
        return Err(place.unsupported(format_args!("policy `{}`", policy.name)));
    };
    let place = place.field("typed_config");
    let config: UriTemplateRewriteConfig = value::unpack(&place, any)?;
    let rewrite = UriRewrite::parse(&config.path_template_rewrite);
    rewrite.map(PathRewrite::Template).map_err(|e| place.field("path_template_rewrite").error(e))
}

pub(crate) fn encode_policy(rewrite: &UriRewrite) -> TypedExtensionConfig {
    let config = UriTemplateRewriteConfig { path_template_rewrite: rewrite.source().to_owned() };
    value::extension(NAME, value::pack(&config))
}
