#version 330
#include "surface.glsl"
uniform vec3 lips_at;        // z of the front of the lips, opening 0 to 1, y of the upper lip
void main() {
    vec3 v = normalize(eye - P), n = normalize(N);
    vec3 c = mix(vec3(.50, .165, .155), vec3(.58, .215, .195), noise(R * 60.));
    float front = smoothstep(.60, .10, lips_at.x - P.z);
    float open = mix(.10, .95, front) * mix(.25, 1., lips_at.y) * smoothstep(.26, .10, abs(R.x));
    vec3 light = KEY_COLOUR * clamp((dot(n, KEY) + .3) / 1.3, 0., 1.) * .75 + FILL_COLOUR * max(dot(n, FILL), 0.) + ambient(n);
    colour = vec4(film(c * light * open + ggx(n, v, KEY, .32) * KEY_COLOUR * 1.4 * open), 1);
}
