"""Compatibility with the original TalkingGaussian (Li et al., ECCV 2024): import, render, export.

Who has a checkpoint of the original wants to talk with it here. What there is, and why it is so:

- **Import is exact, not distilled.** The original's tri-planes (12 levels of one feature whose cells fit no
  grid of ours), soft-plus sizes, raw quaternions, second-degree harmonics and audio networks cannot be
  written in the terms of our own deformation network without an error. So a bundle may hold a second kind of
  network, the original's (version 2 of the format, docs/bundle.md): its tensors are copied bit for bit and
  evaluated by `deformer`, and our rasterisers draw the result unchanged.
- **Two ways to drive it.** `render` gives the networks what they were trained on (audio windows, action
  units, poses) and reproduces the original's frames. The host drives the same bundle like any avatar; between
  our face units and the original's audio codes stands one linear map that `driving` fits to the recording.
  That map is an addition of ours, and the only part of such a bundle that is fitted.
- **No torso.** The original pastes the recorded torso behind the head and learns none. `render` pastes it
  too; when the host talks, a still of the torso is the background.
- **Export** writes our training set in the original's layout, so that both can be trained on the same data.

Written from the paper and a description of formats; no line is the original's, whose code is non-commercial.
"""
