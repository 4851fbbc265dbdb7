"""OpenVINO GenAI: its continuous batching pipeline, which reads a GGUF file itself."""

from __future__ import annotations

from importlib.metadata import version
from itertools import count

import numpy as np
import openvino  # type: ignore[import-not-found]
import openvino_genai  # type: ignore[import-not-found]
from benchmarks.contenders.protocol import Generation, Options, serve


class OpenVINOPipeline:
    def __init__(self, options: Options) -> None:
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.cache_size = 1  # GB
        scheduler.max_num_batched_tokens = 2048  # a whole prompt in one step; its default cuts it in two
        scheduler.enable_prefix_caching = False
        self._pipeline = openvino_genai.ContinuousBatchingPipeline(
            options.model, scheduler, "CPU", {"INFERENCE_NUM_THREADS": options.threads}
        )
        self._ids = count()
        self.about = {
            "version": version("openvino-genai"),
            "cache": "its default",
        }

    def generate(self, prompts: list[list[int]], max_tokens: int) -> Generation:
        settings = openvino_genai.GenerationConfig()
        settings.max_new_tokens = max_tokens
        settings.ignore_eos = True
        settings.do_sample = False
        inputs = [openvino.Tensor(np.array([prompt], dtype=np.int64)) for prompt in prompts]
        generation = Generation.of(len(prompts))
        handles = [self._pipeline.add_request(next(self._ids), ids, settings) for ids in inputs]
        while self._pipeline.has_non_finished_requests():
            self._pipeline.step()
            for stream, handle in enumerate(handles):
                while handle.can_read():
                    (output,) = handle.read().values()
                    generation.add(stream, output.generated_ids)
        return generation


if __name__ == "__main__":
    serve(OpenVINOPipeline)
