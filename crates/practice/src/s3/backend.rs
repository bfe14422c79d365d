//! The operations of S3 that the practice server knows, one function each; `s3s` answers `NotImplemented` to the rest.

use std::io::{self, Seek as _, SeekFrom};
use std::sync::Arc;

use s3s::dto::{
    AbortMultipartUploadInput, AbortMultipartUploadOutput, Bucket, BucketLocationConstraint, ChecksumAlgorithm,
    ChecksumType, CompleteMultipartUploadInput, CompleteMultipartUploadOutput, CompletedPart, CreateBucketInput,
    CreateBucketOutput, CreateMultipartUploadInput, CreateMultipartUploadOutput, DeleteBucketInput, DeleteBucketOutput,
    DeleteObjectInput, DeleteObjectOutput, DeleteObjectsInput, DeleteObjectsOutput, DeletedObject, ETag, EncodingType,
    GetBucketLocationInput, GetBucketLocationOutput, GetObjectInput, GetObjectOutput, GetObjectTaggingInput,
    GetObjectTaggingOutput, HeadBucketInput, HeadBucketOutput, HeadObjectInput, HeadObjectOutput, ListBucketsInput,
    ListBucketsOutput, ListMultipartUploadsInput, ListMultipartUploadsOutput, ListObjectsInput, ListObjectsOutput,
    ListObjectsV2Input, ListObjectsV2Output, ListPartsInput, ListPartsOutput, PutObjectInput, PutObjectOutput,
    StreamingBlob, UploadPartInput, UploadPartOutput,
};
use s3s::{S3, S3Error, S3Request, S3Response, S3Result, s3_error};
use tokio::io::AsyncReadExt as _;
use tokio_util::io::ReaderStream;

use super::answer::{self, ReadCondition, claims, describe};
use super::checksum::{set_checksums, take_checksums};
use super::listing;
use super::objects::{Condition, Objects, Stored, strong};
use super::receive::receive;
use super::uploads::{self, Completion, Named, Upload};

/// How much of an object is read at once.
const READ_BYTES: usize = 256 * 1024;

/// The objects, as `s3s` calls them.
pub(super) struct Backend {
    objects: Arc<Objects>,
    region: String,
}

impl Backend {
    pub(super) fn new(objects: Objects, region: String) -> Self {
        Self { objects: Arc::new(objects), region }
    }

    /// Runs something that blocks where it may.
    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Objects) -> S3Result<T> + Send + 'static,
    ) -> S3Result<T> {
        let objects = Arc::clone(&self.objects);
        tokio::task::spawn_blocking(move || work(&objects)).await.map_err(S3Error::internal_error)?
    }

    async fn check_bucket(&self, bucket: &str) -> S3Result<()> {
        let bucket = bucket.to_owned();
        self.blocking(move |objects| objects.bucket(&bucket).map(drop)).await
    }

    async fn find(&self, bucket: String, key: String, condition: &ReadCondition) -> S3Result<Stored> {
        let stored = self.blocking(move |objects| objects.get(&bucket, &key)).await?;
        condition.check(&stored)?;
        Ok(stored)
    }
}

#[async_trait::async_trait]
impl S3 for Backend {
    async fn put_object(&self, mut req: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let mut description = describe!(req.input);
        answer::check_description(&description, req.input.sse_customer_algorithm.as_deref())?;
        if req.input.write_offset_bytes.is_some() {
            return Err(s3_error!(NotImplemented, "The practice server does not append to objects."));
        }
        self.check_bucket(&req.input.bucket).await?;
        let claims = claims!(req);
        let received = receive(self.objects.incoming(), req.input.body.take(), claims).await?;
        description.etag = hex::encode(received.md5);
        description.checksum_type = answer::single_checksum_type(&received.checksums);
        description.checksums = received.checksums;

        let mut output = PutObjectOutput {
            e_tag: Some(strong(&description.etag)),
            server_side_encryption: answer::encryption(&description),
            checksum_type: description.checksum_type.clone().map(ChecksumType::from),
            ..PutObjectOutput::default()
        };
        set_checksums!(output, description.checksums.clone());
        let condition = Condition { if_match: req.input.if_match, if_none_match: req.input.if_none_match };
        let (bucket, key) = (req.input.bucket, req.input.key);
        self.blocking(move |objects| objects.put((&bucket, &key), received.file, description, &condition)).await?;
        Ok(S3Response::new(output))
    }

    async fn head_object(&self, req: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let input = req.input;
        let condition = ReadCondition {
            matches: input.if_match,
            none_matches: input.if_none_match,
            modified_since: input.if_modified_since,
            unmodified_since: input.if_unmodified_since,
        };
        let stored = self.find(input.bucket, input.key, &condition).await?;
        Ok(S3Response::new(answer::head(&stored, input.checksum_mode.as_ref())))
    }

    async fn get_object(&self, mut req: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let condition = answer::read_condition(&mut req.input);
        let input = req.input;
        let stored = self.find(input.bucket, input.key, &condition).await?;
        let range = input.range.map(|range| range.check(stored.size_bytes)).transpose()?;
        // The checksum of the whole would only mislead beside a piece.
        let mode = input.checksum_mode.filter(|_| range.is_none());
        let mut head = answer::head(&stored, mode.as_ref());
        let content_range = range.as_ref().map(|range| {
            let last = range.end.saturating_sub(1);
            format!("bytes {}-{last}/{}", range.start, stored.size_bytes)
        });
        let range = range.unwrap_or(0..stored.size_bytes);
        let length = range.end - range.start;
        let tag_count = stored.description.tagging.as_deref().map(|header| answer::tags(header).len());
        let mut file = stored.file;
        file.seek(SeekFrom::Start(range.start)).map_err(S3Error::internal_error)?;
        let bytes = ReaderStream::with_capacity(tokio::fs::File::from_std(file).take(length), READ_BYTES);

        let checksums = take_checksums!(head);
        let mut output = GetObjectOutput {
            accept_ranges: head.accept_ranges,
            body: Some(StreamingBlob::wrap::<_, io::Error>(bytes)),
            cache_control: head.cache_control,
            checksum_type: head.checksum_type,
            content_disposition: head.content_disposition,
            content_encoding: head.content_encoding,
            content_language: head.content_language,
            content_length: i64::try_from(length).ok(),
            content_range,
            content_type: head.content_type,
            e_tag: head.e_tag,
            last_modified: head.last_modified,
            metadata: head.metadata,
            server_side_encryption: head.server_side_encryption,
            storage_class: head.storage_class,
            tag_count: tag_count.and_then(|count| i32::try_from(count).ok()),
            ..GetObjectOutput::default()
        };
        set_checksums!(output, checksums);
        Ok(S3Response::new(output))
    }

    async fn get_object_tagging(
        &self,
        req: S3Request<GetObjectTaggingInput>,
    ) -> S3Result<S3Response<GetObjectTaggingOutput>> {
        let stored = self.find(req.input.bucket, req.input.key, &ReadCondition::default()).await?;
        let tag_set = answer::tags(stored.description.tagging.as_deref().unwrap_or_default());
        Ok(S3Response::new(GetObjectTaggingOutput { tag_set, version_id: None }))
    }

    async fn delete_object(&self, req: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        let input = req.input;
        self.blocking(move |objects| objects.delete(&input.bucket, &input.key)).await?;
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    async fn delete_objects(&self, req: S3Request<DeleteObjectsInput>) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let input = req.input;
        if input.delete.objects.len() > listing::PAGE_MAX {
            return Err(s3_error!(MalformedXML, "At most 1000 objects can be deleted at once."));
        }
        let quiet = input.delete.quiet.unwrap_or_default();
        let deleted = self
            .blocking(move |objects| {
                let keys = input.delete.objects.into_iter().map(|object| object.key);
                keys.map(|key| objects.delete(&input.bucket, &key).map(|()| key)).collect::<S3Result<Vec<_>>>()
            })
            .await?;
        let deleted = deleted.into_iter().map(|key| DeletedObject { key: Some(key), ..DeletedObject::default() });
        let deleted = (!quiet).then(|| deleted.collect());
        Ok(S3Response::new(DeleteObjectsOutput { deleted, ..DeleteObjectsOutput::default() }))
    }

    async fn list_objects_v2(&self, req: S3Request<ListObjectsV2Input>) -> S3Result<S3Response<ListObjectsV2Output>> {
        self.answer_list_objects_v2(req).await
    }

    async fn list_objects(&self, req: S3Request<ListObjectsInput>) -> S3Result<S3Response<ListObjectsOutput>> {
        self.answer_list_objects(req).await
    }

    async fn create_multipart_upload(
        &self,
        mut req: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let mut description = describe!(req.input);
        answer::check_description(&description, req.input.sse_customer_algorithm.as_deref())?;
        let algorithm = req.input.checksum_algorithm;
        // As at the original service: composed unless asked otherwise, but CRC64NVME only exists for the whole.
        let is_crc64 = algorithm.as_ref().is_some_and(|name| name.as_str() == ChecksumAlgorithm::CRC64NVME);
        let usual = if is_crc64 { ChecksumType::FULL_OBJECT } else { ChecksumType::COMPOSITE };
        let checksum_type = req.input.checksum_type.unwrap_or_else(|| ChecksumType::from_static(usual));
        let checksum_type = algorithm.as_ref().map(|_| checksum_type);
        description.checksum_type = checksum_type.as_ref().map(|kind| kind.as_str().to_owned());
        let mut output = CreateMultipartUploadOutput {
            bucket: Some(req.input.bucket.clone()),
            key: Some(req.input.key.clone()),
            server_side_encryption: answer::encryption(&description),
            checksum_algorithm: algorithm.clone(),
            checksum_type,
            ..CreateMultipartUploadOutput::default()
        };
        let upload = Upload {
            bucket: req.input.bucket,
            key: req.input.key,
            description,
            checksum_algorithm: algorithm.map(|name| name.as_str().to_owned()),
        };
        output.upload_id = Some(self.blocking(move |objects| objects.begin_upload(&upload)).await?);
        Ok(S3Response::new(output))
    }

    async fn upload_part(&self, mut req: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
        let number = req.input.part_number;
        uploads::check_number(number)?;
        let mut claims = claims!(req);
        let (bucket, key, id) = (req.input.bucket, req.input.key, req.input.upload_id.clone());
        let upload = self.blocking(move |objects| objects.upload(&bucket, &key, &id)).await?;
        claims.algorithm = claims.algorithm.or(upload.checksum_algorithm);
        let received = receive(self.objects.incoming(), req.input.body.take(), claims).await?;
        let id = req.input.upload_id;
        let part = self.blocking(move |objects| objects.put_part(&id, number, received)).await?;
        let mut output = UploadPartOutput {
            e_tag: Some(strong(&part.etag)),
            server_side_encryption: answer::encryption(&upload.description),
            ..UploadPartOutput::default()
        };
        set_checksums!(output, part.checksums);
        Ok(S3Response::new(output))
    }

    async fn complete_multipart_upload(
        &self,
        mut req: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let parts = req.input.multipart_upload.take().and_then(|upload| upload.parts).unwrap_or_default();
        let named = |mut part: CompletedPart| Named {
            number: part.part_number.unwrap_or_default(),
            etag: part.e_tag.take().map(ETag::into_value),
            checksums: take_checksums!(part),
        };
        let completion = Completion {
            parts: parts.into_iter().map(named).collect(),
            checksums: take_checksums!(req.input),
            size_bytes: req.input.mpu_object_size.and_then(|size| u64::try_from(size).ok()),
            condition: Condition { if_match: req.input.if_match, if_none_match: req.input.if_none_match },
        };
        let (bucket, key, id) = (req.input.bucket, req.input.key, req.input.upload_id);
        let mut output = CompleteMultipartUploadOutput {
            bucket: Some(bucket.clone()),
            key: Some(key.clone()),
            location: Some(format!(
                "/{bucket}/{}",
                answer::listed(Some(&EncodingType::from_static(EncodingType::URL)), &key)
            )),
            ..CompleteMultipartUploadOutput::default()
        };
        let description = self
            .blocking(move |objects| {
                let upload = objects.upload(&bucket, &key, &id)?;
                objects.complete_upload(&id, &upload, &completion)
            })
            .await?;
        output.e_tag = Some(strong(&description.etag));
        output.server_side_encryption = answer::encryption(&description);
        output.checksum_type = description.checksum_type.map(ChecksumType::from);
        set_checksums!(output, description.checksums);
        Ok(S3Response::new(output))
    }

    async fn abort_multipart_upload(
        &self,
        req: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        let input = req.input;
        self.blocking(move |objects| {
            objects.upload(&input.bucket, &input.key, &input.upload_id)?;
            objects.abort_upload(&input.upload_id)
        })
        .await?;
        Ok(S3Response::new(AbortMultipartUploadOutput::default()))
    }

    async fn list_parts(&self, req: S3Request<ListPartsInput>) -> S3Result<S3Response<ListPartsOutput>> {
        self.answer_list_parts(req).await
    }

    async fn list_multipart_uploads(
        &self,
        req: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        self.answer_list_multipart_uploads(req).await
    }

    async fn create_bucket(&self, req: S3Request<CreateBucketInput>) -> S3Result<S3Response<CreateBucketOutput>> {
        let bucket = req.input.bucket;
        let location = Some(format!("/{bucket}"));
        self.blocking(move |objects| objects.create_bucket(&bucket)).await?;
        Ok(S3Response::new(CreateBucketOutput { location }))
    }

    async fn delete_bucket(&self, req: S3Request<DeleteBucketInput>) -> S3Result<S3Response<DeleteBucketOutput>> {
        self.blocking(move |objects| objects.delete_bucket(&req.input.bucket)).await?;
        Ok(S3Response::new(DeleteBucketOutput {}))
    }

    async fn head_bucket(&self, req: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        self.check_bucket(&req.input.bucket).await?;
        let bucket_region = Some(self.region.clone());
        Ok(S3Response::new(HeadBucketOutput { bucket_region, ..HeadBucketOutput::default() }))
    }

    async fn get_bucket_location(
        &self,
        req: S3Request<GetBucketLocationInput>,
    ) -> S3Result<S3Response<GetBucketLocationOutput>> {
        self.check_bucket(&req.input.bucket).await?;
        let location_constraint = Some(BucketLocationConstraint::from(self.region.clone()));
        Ok(S3Response::new(GetBucketLocationOutput { location_constraint }))
    }

    async fn list_buckets(&self, _req: S3Request<ListBucketsInput>) -> S3Result<S3Response<ListBucketsOutput>> {
        let buckets = self.blocking(|objects| objects.buckets().map_err(S3Error::internal_error)).await?;
        let shown = |(name, created): (String, std::time::SystemTime)| Bucket {
            name: Some(name),
            creation_date: Some(created.into()),
            bucket_region: None,
        };
        let buckets = Some(buckets.into_iter().map(shown).collect());
        Ok(S3Response::new(ListBucketsOutput { buckets, ..ListBucketsOutput::default() }))
    }
}
