"""Words of other programs, and the settings that mean the same here: for errors."""

# Words, each the last part of a setting's name, and what to say.
MEANINGS = (
    ("epoch epochs max_epochs min_epochs n_epochs num_epochs", "Use training.<phase>.epochs."),
    ("base_lr learning_rate lr", "Use training.<phase>.optimizer.lr."),
    ("betas eps momentum nesterov wd weight_decay", "Use training.<phase>.optimizer.<setting>."),
    ("warmup warmup_epochs warmup_steps", "Use training.<phase>.scheduler.warmup."),
    ("optim optimiser solver", "Use optimizer=adamw, or another choice."),
    ("lr_schedule lr_scheduler sched schedule", "Use scheduler=cosine, or another choice."),
    ("batch batch_size batchsize bs train_batch_size", "Use training.<phase>.batch_size."),
    ("eval_batch_size test_batch_size val_batch_size", "Use evaluation.batch_size."),
    ("label_smoothing smoothing", "Use training.pretrain.label_smoothing."),
    ("early_stopping patience", "No phase ends early. Use training.<phase>.epochs."),
    (
        "exp_dir log_dir logdir out_dir outdir output output_dir save_dir save_path work_dir",
        "Use run_dir.",
    ),
    (
        "checkpoint checkpoint_path ckpt ckpt_path load_from resume_from resume_from_checkpoint",
        "Use resume=FOLDER, with the folder of the run.",
    ),
    (
        "cuda device gpu gpus n_gpu n_gpus ngpus num_gpus use_cuda use_gpu",
        "Use trainer=gpu, or trainer=ddp for several GPUs.",
    ),
    ("nproc world_size", "Use trainer=ddp."),
    ("amp bf16 fp16 half mixed_precision precision", "Use trainer.precision."),
    (
        "clip clip_grad grad_clip grad_clip_norm gradient_clip gradient_clip_val max_norm",
        "Use +trainer.gradient_clip_val.",
    ),
    ("accum_steps accumulate_grad_batches grad_accum", "Use +trainer.accumulate_grad_batches."),
    ("dry_run fast_dev_run max_steps smoke_test", "Use debug=fewsteps."),
    ("limit_train_batches", "Use +trainer.limit_train_batches, or debug=fewsteps."),
    ("overfit overfit_batches", "Use debug=overfit."),
    ("profile profiler", "Use debug=profiler."),
    (
        "n_workers num_workers pin_memory workers",
        "Use dataset.workers for images in files; those in memory need none.",
    ),
    ("arch architecture encoder model model_name net network", "Use backbone=..."),
    ("imagenet pretrained weights", "Use backbone=timm or backbone=efficientnet_lite0."),
    (
        "code_length code_size hash_bit hash_bits hash_dim hash_length length n_bits num_bits",
        "Use bits.",
    ),
    ("criterion loss loss_fn", "Use method=..."),
    ("alpha gamma sharpness tau temperature", "Use method.tau."),
    ("data data_name dataset_name", "Use dataset=..."),
    (
        "data_path data_root dataroot image_dir img_dir path root",
        "Use data_dir, or dataset=image_folder dataset.path=... for your own images.",
    ),
    (
        "crop_size image_size img_size input_size resolution size",
        "Use dataset.size, which dataset=image_folder has.",
    ),
    (
        "aug augmentation crop cutout flip hflip random_crop transform transforms translate",
        "Use augment.translate, augment.flip or augment.cutout.",
    ),
    ("n_query num_queries num_query query_size split", "Use protocol=..."),
    ("val_fraction val_ratio val_size val_split valid_size", "Use protocol.validation.fraction."),
    ("k top_k topk topn", "Use evaluation.ks."),
    ("hamming_radius radius", "Use evaluation.radius."),
    ("manual_seed random_seed random_state rng", "Use seed."),
    ("exp_name experiment_name name run_name", "Use run_dir or tags."),
    ("csv tensorboard use_wandb wandb", "Use logger=wandb, csv or tensorboard."),
    ("group job_type mode notes project", "Use logger.wandb.<setting>."),
)
ANSWERS = {word: answer for words, answer in MEANINGS for word in words.split()}


def find_meaning(name: str) -> str:
    """What to use in place of a setting that there is not; empty where nothing is near.

    Example:
        >>> find_meaning("training.hash.learning_rate")
        'Use training.hash.optimizer.lr.'
        >>> find_meaning("logger.wandb.project_name")
        ''
    """
    parts = name.split(".")
    answer = ANSWERS.get(parts[-1], "").replace("<setting>", parts[-1])
    is_of_phase = parts[0] == "training" and len(parts) > 2
    return answer.replace("<phase>", parts[1]) if is_of_phase else answer
