#version 330
// Colour and relief of the skin, drawn once into texture space. Output 0: sRGB colour, lips. Output 1: gradient of
// the relief, oiliness. A.w: inside of the mouth.
in vec3 R; in vec2 U; in vec4 A;
layout(location = 0) out vec4 o0;
layout(location = 1) out vec4 o1;
uniform sampler2D mask;      // r lips, g eyelids and ears, b inside of the mouth
uniform vec4 face;           // y and z of the mouth, y of the eyes, y of the nose tip
uniform vec3 eyes[2];
uniform vec3 spots[2];
#include "noise.glsl"
vec3 srgb(float r, float g, float b) { return pow(vec3(r, g, b), vec3(2.2)); }
float blob(vec3 c, vec3 s) { vec3 d = (R - c) / s; return exp(-dot(d, d)); }
vec3 slope(vec3 q, float f, float here) {
    const vec3 e = vec3(.003, 0, 0);
    return vec3(noise((q + e.xyy) * f), noise((q + e.yxy) * f), noise((q + e.yyx) * f)) - here;
}
void main() {
    vec4 m = texture(mask, U);
    float lips = smoothstep(.25, .8, m.r), inside = A.w;
    float n1 = noise(R * 6.), n2 = noise(R * 22.), n3 = noise(R * 70.), n4 = noise(R * 150.);
    vec3 relief = slope(R, 150., n4) * .6 + slope(R, 70., n3) * .9 + slope(R, 26., noise(R * 26.)) * .35;

    vec3 c = mix(srgb(.880, .705, .610), srgb(.850, .655, .555), n1 * .45 + n2 * .22);
    c = mix(c, srgb(.855, .640, .550), smoothstep(.5, .8, noise(R * 11. + 7.)) * .16);
    // Warmth of cheeks, nose, chin and ears; a cooler, paler forehead.
    float ex = abs(eyes[0].x - eyes[1].x) * .5;
    float blush = blob(vec3(-ex * 1.22, face.z - .34, face.y - .20), vec3(.21, .17, .36))
        + blob(vec3(ex * 1.22, face.z - .34, face.y - .20), vec3(.21, .17, .36))
        + .55 * blob(vec3(0, face.w, face.y + .12), vec3(.12, .11, .16))
        + .35 * blob(vec3(0, face.x - .42, face.y), vec3(.2, .12, .3));
    c = mix(c, srgb(.835, .500, .445), clamp(blush, 0., 1.) * .48);
    c = mix(c, srgb(.895, .735, .645), blob(vec3(0, face.z + .42, face.y - .1), vec3(.5, .22, .5)) * .35);
    // Freckles across nose and cheeks, and two tiny moles.
    float zone = blob(vec3(0, face.z - .24, face.y), vec3(.46, .19, .6));
    float freckles = smoothstep(.58, .74, noise(R * 44. + 3.)) * smoothstep(.25, .6, noise(R * 13. + 1.)) * zone
        + .6 * smoothstep(.70, .80, noise(R * 31.)) * zone;
    c = mix(c, srgb(.64, .42, .31), clamp(freckles, 0., 1.) * .17);
    for (int i = 0; i < 2; i++) {
        float d = length((R - spots[i]) / (.0070 + .0015 * float(i % 2)));
        c = mix(c, srgb(.40, .25, .18), smoothstep(1.15, .6, d) * .65);
    }
    // Slight shade under the eyes, thin skin of the lids.
    float tired = 0.;
    for (int i = 0; i < 2; i++) {
        vec2 t = (R.xy - eyes[i].xy - vec2(0, -.135)) / vec2(.16, .050);
        tired += exp(-dot(t, t));
    }
    c = mix(c, srgb(.77, .555, .495), tired * .22);
    c = mix(c, srgb(.80, .590, .505), smoothstep(.2, .8, m.g) * .16);
    vec3 lip = mix(srgb(.765, .455, .430), srgb(.680, .360, .350), n2 * .6);
    c = mix(c, lip, lips * .86 * (1. - .20 * n3));
    c = mix(c, srgb(.53, .22, .19), inside);
    c *= mix(1., .965 + .07 * n3, 1. - lips);
    // A tint of skin under the brows; the same line as brows.py.
    for (int i = 0; i < 2; i++) {
        float t = (abs(R.x) - abs(eyes[i].x) + .175) / .43;
        float line = eyes[i].y + .162 + .055 * sin(3.1416 * clamp(t * .80 + .04, 0., 1.)) - .11 * clamp(t - .60, 0., 1.) + .008;
        float half_width = .040 * (1. - .80 * pow(max(t, 0.), 1.6)) * smoothstep(-.10, .16, t) + .003;
        float under = smoothstep(1.30, .25, abs(R.y - line) / half_width) * smoothstep(-.06, .14, t)
            * smoothstep(1.08, .80, t) * step(0., R.x * eyes[i].x) * step(.6, R.z);
        c = mix(c, srgb(.40, .275, .205), under * .38);
    }
    float oil = .40 + .60 * blob(vec3(0, face.w, face.y + .12), vec3(.11, .22, .2))
        + .25 * blob(vec3(0, face.z + .38, face.y), vec3(.30, .18, .5));
    oil = mix(oil * (.65 + .7 * n2), 1., lips) * (smoothstep(face.x - .65, face.x - .40, R.y) * .75 + .25);
    o0 = vec4(pow(c, vec3(1. / 2.2)), lips);
    o1 = vec4(clamp(relief * 1.2 + .5, 0., 1.), oil * .6);
}
