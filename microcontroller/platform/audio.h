// SPDX-License-Identifier: Apache-2.0
// What mic_loop asks of a board: a microphone and a loudspeaker that move samples by DMA in a
// circle of two halves. Implement these four functions with the vendor's SAI, I2S or PDM driver.
#ifndef LMKD_AUDIO_H
#define LMKD_AUDIO_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// Called by the driver, in its interrupt, when half 0 or 1 of both buffers is free: the microphone
// has filled it and the loudspeaker has played it.
typedef void (*lmkd_audio_callback)(int half);

// Starts both directions at 16 kHz, mono, 16 bits. Each buffer has 2 * `half_samples` samples and
// must lie where the DMA reaches it, aligned to 32 bytes. Returns 0, or the driver's error.
int lmkd_audio_start(int16_t *microphone, int16_t *loudspeaker, size_t half_samples,
                     lmkd_audio_callback callback);

// Before the processor reads samples that the DMA wrote, and after it wrote samples that the DMA
// will read: invalidates or cleans the data cache (Cortex-M7, M55). Empty on cores without one.
void lmkd_audio_invalidate(int16_t *samples, size_t num_samples);
void lmkd_audio_clean(int16_t *samples, size_t num_samples);

// Sleeps until an interrupt has come since the last call: WFE, or a semaphore of the RTOS; WFI
// would miss one that came while a hop was processed. Returns 0 to end the loop, which a product
// never does.
int lmkd_audio_wait(void);

#ifdef __cplusplus
}
#endif

#endif  // LMKD_AUDIO_H
