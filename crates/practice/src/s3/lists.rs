//! The four listings of [`Backend`]: objects in both versions, parts, and open uploads.

use s3s::dto::{
    ChecksumAlgorithm, ChecksumType, ListMultipartUploadsInput, ListMultipartUploadsOutput, ListObjectsInput,
    ListObjectsOutput, ListObjectsV2Input, ListObjectsV2Output, ListPartsInput, ListPartsOutput, MultipartUpload, Part,
    Timestamp,
};
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::answer;
use super::backend::Backend;
use super::checksum::set_checksums;
use super::listing::{self, Page, Query};
use super::objects::strong;
use super::uploads;

impl Backend {
    /// Answers `ListObjectsV2`.
    pub(super) async fn answer_list_objects_v2(
        &self,
        req: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = req.input;
        let limit = limit(input.max_keys)?;
        let query = Query {
            bucket: input.bucket.clone(),
            prefix: input.prefix.clone().unwrap_or_default(),
            delimiter: input.delimiter.clone(),
            start_after: input.start_after.clone(),
            resume_after: input.continuation_token.as_deref().map(answer::read_token).transpose()?,
            limit,
        };
        let page = self.page(query).await?;
        let last = page.entries.last().filter(|_| page.is_truncated);
        let next_continuation_token = last.map(|(name, _)| answer::token(name));
        let encoding = input.encoding_type;
        let encode = |text: Option<String>| text.map(|text| answer::listed(encoding.as_ref(), &text));
        let is_truncated = Some(page.is_truncated);
        let key_count = i32::try_from(page.entries.len()).ok();
        let (contents, common_prefixes) = answer::contents(page, encoding.as_ref());
        Ok(S3Response::new(ListObjectsV2Output {
            name: Some(input.bucket),
            prefix: encode(input.prefix),
            delimiter: encode(input.delimiter),
            start_after: encode(input.start_after),
            max_keys: i32::try_from(limit).ok(),
            key_count,
            continuation_token: input.continuation_token,
            next_continuation_token,
            is_truncated,
            contents: Some(contents),
            common_prefixes: Some(common_prefixes),
            encoding_type: encoding,
            request_charged: None,
        }))
    }

    /// Answers `ListObjects`.
    pub(super) async fn answer_list_objects(
        &self,
        req: S3Request<ListObjectsInput>,
    ) -> S3Result<S3Response<ListObjectsOutput>> {
        let input = req.input;
        let limit = limit(input.max_keys)?;
        let query = Query {
            bucket: input.bucket.clone(),
            prefix: input.prefix.clone().unwrap_or_default(),
            delimiter: input.delimiter.clone(),
            start_after: None,
            resume_after: input.marker.clone(),
            limit,
        };
        let page = self.page(query).await?;
        let encoding = input.encoding_type;
        let encode = |text: Option<String>| text.map(|text| answer::listed(encoding.as_ref(), &text));
        let is_truncated = Some(page.is_truncated);
        let last = page.entries.last().filter(|_| page.is_truncated);
        let next_marker = encode(last.map(|(name, _)| name.clone()));
        let (contents, common_prefixes) = answer::contents(page, encoding.as_ref());
        Ok(S3Response::new(ListObjectsOutput {
            name: Some(input.bucket),
            prefix: encode(input.prefix),
            delimiter: encode(input.delimiter),
            marker: encode(input.marker),
            max_keys: i32::try_from(limit).ok(),
            next_marker,
            is_truncated,
            contents: Some(contents),
            common_prefixes: Some(common_prefixes),
            encoding_type: encoding,
            request_charged: None,
        }))
    }

    /// Answers `ListParts`.
    pub(super) async fn answer_list_parts(
        &self,
        req: S3Request<ListPartsInput>,
    ) -> S3Result<S3Response<ListPartsOutput>> {
        let input = req.input;
        let limit = limit(input.max_parts)?;
        let marker = input.part_number_marker.unwrap_or_default();
        let (bucket, key, id) = (input.bucket.clone(), input.key.clone(), input.upload_id.clone());
        let (upload, (parts, is_truncated)) = self
            .blocking(move |objects| Ok((objects.upload(&bucket, &key, &id)?, objects.parts(&id, marker, limit)?)))
            .await?;
        let last = parts.last().map(|(number, _)| *number);
        let shown = |(number, part): (i32, uploads::Part)| {
            let mut shown = Part {
                part_number: Some(number),
                e_tag: Some(strong(&part.etag)),
                size: i64::try_from(part.size_bytes).ok(),
                last_modified: part.modified.map(Timestamp::from),
                ..Part::default()
            };
            set_checksums!(shown, part.checksums);
            shown
        };
        Ok(S3Response::new(ListPartsOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(input.upload_id),
            checksum_algorithm: upload.checksum_algorithm.map(ChecksumAlgorithm::from),
            checksum_type: upload.description.checksum_type.map(ChecksumType::from),
            part_number_marker: Some(marker),
            next_part_number_marker: last.filter(|_| is_truncated),
            max_parts: i32::try_from(limit).ok(),
            is_truncated: Some(is_truncated),
            parts: Some(parts.into_iter().map(shown).collect()),
            ..ListPartsOutput::default()
        }))
    }

    /// Answers `ListMultipartUploads`.
    pub(super) async fn answer_list_multipart_uploads(
        &self,
        req: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        let input = req.input;
        let limit = limit(input.max_uploads)?;
        let bucket = input.bucket.clone();
        let mut open = self.blocking(move |objects| objects.open_uploads(&bucket)).await?;
        let prefix = input.prefix.clone().unwrap_or_default();
        let after_key = input.key_marker.clone().unwrap_or_default();
        let after_id = input.upload_id_marker.clone().unwrap_or_else(|| "~".to_owned());
        open.retain(|open| {
            let place = (open.upload.key.as_str(), open.id.as_str());
            open.upload.key.starts_with(&prefix) && place > (after_key.as_str(), after_id.as_str())
        });
        let is_truncated = open.len() > limit;
        open.truncate(limit);
        let encoding = input.encoding_type;
        let encode = |text: &str| answer::listed(encoding.as_ref(), text);
        let last = open.last().filter(|_| is_truncated);
        let output = ListMultipartUploadsOutput {
            bucket: Some(input.bucket),
            prefix: input.prefix.as_deref().map(encode),
            key_marker: input.key_marker.as_deref().map(encode),
            upload_id_marker: input.upload_id_marker,
            next_key_marker: last.map(|open| encode(&open.upload.key)),
            next_upload_id_marker: last.map(|open| open.id.clone()),
            max_uploads: i32::try_from(limit).ok(),
            is_truncated: Some(is_truncated),
            encoding_type: encoding.clone(),
            ..ListMultipartUploadsOutput::default()
        };
        let shown = open.into_iter().map(|open| MultipartUpload {
            key: Some(encode(&open.upload.key)),
            upload_id: Some(open.id),
            initiated: Some(open.initiated.into()),
            checksum_algorithm: open.upload.checksum_algorithm.map(ChecksumAlgorithm::from),
            ..MultipartUpload::default()
        });
        Ok(S3Response::new(ListMultipartUploadsOutput { uploads: Some(shown.collect()), ..output }))
    }

    async fn page(&self, query: Query) -> S3Result<Page> {
        self.blocking(move |objects| listing::page(objects, &query)).await
    }
}

/// Reads the length of a page, which defaults to the longest.
fn limit(wanted: Option<i32>) -> S3Result<usize> {
    let wanted = wanted.map_or(Ok(listing::PAGE_MAX), usize::try_from);
    let wanted = wanted.map_err(|_| s3_error!(InvalidArgument, "The length of a page cannot be negative."))?;
    Ok(wanted.min(listing::PAGE_MAX))
}
