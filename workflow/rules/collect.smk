# the records of a study -> tidy tables
rule collect:
    input:
        lambda wc: study.records(wc.study),
    output:
        "results/studies/{study}/tables/runs.parquet",
        "results/studies/{study}/tables/ladder.parquet",
        "results/studies/{study}/tables/repetition.parquet",
        "results/studies/{study}/tables/task_ladder.parquet",
    params:
        spec=lambda wc: study.collect_spec(wc.study),
        code=study.code_digest,
    shell:
        "python -m llama_bench collect {params.spec:q} {output[0]}"
