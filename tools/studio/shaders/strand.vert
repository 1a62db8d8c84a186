#version 330
// Strands as ribbons that face the camera, lit at the vertices (Kajiya and Kay 1989, two shifted highlights).
// at: tone, occlusion, coverage, full width; side: -1 or 1.
in vec3 pos; in vec3 tan; in vec3 shell; in vec4 at; in vec2 wt; in float side;
uniform mat4 bone[3]; uniform mat4 VP; uniform mat4 LVP;
uniform float push; uniform float focal; uniform float pixel;   // ndc per unit at distance one; smallest half width in ndc
uniform vec3 tint; uniform float gloss; uniform float shaded; uniform float thin;
out vec4 lit_colour;
#include "light.glsl"
float highlight(vec3 t, vec3 l, vec3 v, float shift, float sharp) {
    float s = dot(t, normalize(l + v)) + shift;
    return pow(sqrt(max(0., 1. - s * s)), sharp);
}
void main() {
    mat4 m = bone[0] * wt.x + bone[1] * wt.y + bone[2] * (1. - wt.x - wt.y);
    vec4 w = m * vec4(pos, 1);
    w /= w.w;
    vec3 v = normalize(eye - w.xyz), t = normalize(mat3(m) * tan), n = normalize(mat3(m) * shell);
    gl_Position = VP * w;
    vec4 ahead = VP * vec4(w.xyz + t * .01, 1);
    vec2 along = normalize(ahead.xy / ahead.w - gl_Position.xy / gl_Position.w + 1e-9);
    float half_width = .5 * at.w * focal, shown = max(half_width, pixel * gl_Position.w);
    gl_Position.xy += vec2(-along.y, along.x) * side * shown;
    gl_Position.z -= push * gl_Position.w;

    float a = at.x;
    vec3 c = tint * (.55 + .95 * a);
    c = mix(c, c * vec3(1.28, 1.12, .98), smoothstep(.55, 1., a) * .8);
    float tk = dot(t, KEY), tf = dot(t, FILL), nk = dot(n, KEY);
    float key = sqrt(max(0., 1. - tk * tk)) * clamp(nk * .70 + .35, 0., 1.);
    float fill = sqrt(max(0., 1. - tf * tf)) * clamp(dot(n, FILL) * .7 + .3, 0., 1.);
    float lamp = clamp(dot(n, LAMP) * .8 + .25, 0., 1.), window = clamp(dot(n, WINDOW) * .8 + .25, 0., 1.);
    float sun = 1.;
    if (shaded > .5) {
        vec4 s = LVP * w;
        vec3 q = s.xyz / s.w * .5 + .5;
        sun = 0.;
        for (int i = 0; i < 12; i += 2) sun += texture(shadow, q.xy + DISK[i] * .016).r > q.z - .016 ? 1. / 6. : 0.;
        sun = mix(.38, 1., sun);
    }
    vec3 x = c * (KEY_COLOUR * key * sun + FILL_COLOUR * fill + (LAMP_COLOUR * lamp + WINDOW_COLOUR * window) * .34 + ambient(n) * 1.15) * at.y;
    float jitter = (a - .5) * .22;
    vec3 shine = KEY_COLOUR * sun * clamp(nk + .25, 0., 1.)
            * (vec3(.014) * highlight(t, KEY, v, .05 + jitter, 46.) + c * .55 * highlight(t, KEY, v, -.12 + jitter, 13.))
        + FILL_COLOUR * clamp(dot(n, FILL) + .2, 0., 1.)
            * (vec3(.010) * highlight(t, FILL, v, .05 + jitter, 40.) + c * .4 * highlight(t, FILL, v, -.12 + jitter, 13.))
        + (LAMP_COLOUR * clamp(dot(n, LAMP) + .35, 0., 1.) + WINDOW_COLOUR * clamp(dot(n, WINDOW) + .35, 0., 1.))
            * c * .75 * pow(1. - max(dot(n, v), 0.), 2.);
    x = min(x + gloss * shine * at.y, vec3(.55));
    // A ribbon thinner than the smallest width is drawn fainter instead, so that it cannot flicker.
    float cover = thin > .5 ? at.z * min(1., half_width / (shown + 1e-9)) : at.z;
    lit_colour = vec4(film(x), cover);
}
